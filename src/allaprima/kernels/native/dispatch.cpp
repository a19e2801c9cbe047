// Detects the instruction sets of the CPU and stores the level in use.

#include "dispatch.h"

#include <atomic>

#include "kernels.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace allaprima {
namespace {

enum IsaLevel { NONE, AVX2, AVX512, AMX };

std::atomic<int> current_level{NONE};

bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bf16");
}

// Returns whether the CPU has AMX and Linux lets this process use the tile registers, which it must request. Source: Linux,
// Documentation/arch/x86/xstate.rst.
bool has_amx() {
#if defined(__x86_64__) && defined(__linux__) && __has_include(<amxtileintrin.h>)
    constexpr unsigned BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25;
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & BF16) == 0 || (d & TILE) == 0 || (d & INT8) == 0) return false;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

int find_level() {
    __builtin_cpu_init();
    if (has_avx512()) return has_amx() ? AMX : AVX512;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? AVX2 : NONE;
}

}  // namespace

bool uses_amx() { return current_level.load(std::memory_order_relaxed) == AMX; }

}  // namespace allaprima

extern "C" int allaprima_version() { return 3; }

extern "C" int allaprima_level() {
    static const int level = allaprima::find_level();
    return level;
}

extern "C" void allaprima_set_level(int level) { allaprima::current_level.store(level, std::memory_order_relaxed); }
