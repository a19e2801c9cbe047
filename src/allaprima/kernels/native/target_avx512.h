// Enables AVX-512 with VNNI and BF16, and AMX intrinsics, in the files that include this header. The standard headers are included
// before the target pragma: the linker may keep this file's copy of their inline functions, which must run on every CPU.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma")
#if __has_include(<amxtileintrin.h>) && defined(__x86_64__) && defined(__linux__)
#define ALLAPRIMA_HAS_AMX 1
#pragma GCC target("amx-tile,amx-int8,amx-bf16")
#endif

#include <immintrin.h>
