// Peak rate of int8 and bfloat16 products on this CPU: operands in registers, no memory access, two threads.
// Prints "GOP/s GFLOP/s" for AVX-512 and, on CPUs that have it, for AMX. `bench/kernels.py` compiles and runs it.

#include <chrono>
#include <cstdio>
#include <thread>

#include <sys/syscall.h>
#include <unistd.h>

#pragma GCC target("avx512f,avx512vnni,avx512bf16")

#include <immintrin.h>

namespace {

constexpr int SUMS = 24;
constexpr long ROUNDS = 50'000'000;

// Returns 10^9 operations per second of a loop on two threads. operations: of one thread.
template <class Loop>
double by_two(double operations, const Loop& loop) {
    const auto started = std::chrono::steady_clock::now();
    std::thread other(loop);
    loop();
    other.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    return 2e-9 * operations / seconds.count();
}

template <class Instruction>
double rate(int operations, const Instruction& instruction) {
    return by_two(double(operations) * ROUNDS * SUMS, [&] {
        __m512i sums[SUMS];
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; ++i) sums[i] = _mm512_setzero_si512();
        const __m512i ones = _mm512_set1_epi8(1);
        for (long round = 0; round < ROUNDS; ++round)
#pragma GCC unroll 24
            for (int i = 0; i < SUMS; ++i) instruction(sums[i], ones);
    });
}

// Returns the rate of four AMX products: 16 x 16 sums each, over `depth` products.
template <class Instructions>
double amx_rate(int depth, const Instructions& four) {
    constexpr long AMX_ROUNDS = ROUNDS / 4;
    return by_two(2. * 4 * 16 * 16 * depth * AMX_ROUNDS, [&] {
        struct {
            unsigned char palette = 1, start = 0, reserved[14] = {};
            unsigned short bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        asm volatile("ldtilecfg %0" ::"m"(config));
        for (long round = 0; round < AMX_ROUNDS; ++round) four();
        asm volatile("tilerelease");
    });
}

bool has_amx() {
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

}  // namespace

int main() {
    const double int8 = rate(128, [](__m512i& sum, __m512i x) __attribute__((always_inline)) {
        asm volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(x));
    });
    const double bf16 = rate(64, [](__m512i& sum, __m512i x) __attribute__((always_inline)) {
        asm volatile("vdpbf16ps %1, %1, %0" : "+v"(sum) : "v"(x));
    });
    std::printf("%.0f %.0f\n", int8, bf16);
    if (!has_amx()) return 0;
    const double amx_int8 = amx_rate(64, [] {
        asm volatile("tdpbssd %tmm6, %tmm4, %tmm0\n\ttdpbssd %tmm7, %tmm4, %tmm1\n\t"
                     "tdpbssd %tmm6, %tmm5, %tmm2\n\ttdpbssd %tmm7, %tmm5, %tmm3");
    });
    const double amx_bf16 = amx_rate(32, [] {
        asm volatile("tdpbf16ps %tmm6, %tmm4, %tmm0\n\ttdpbf16ps %tmm7, %tmm4, %tmm1\n\t"
                     "tdpbf16ps %tmm6, %tmm5, %tmm2\n\ttdpbf16ps %tmm7, %tmm5, %tmm3");
    });
    std::printf("%.0f %.0f\n", amx_int8, amx_bf16);
}
