// For files that are compiled for CPUs with AVX-512 VNNI and BF16, whatever the rest is compiled for. Include it after
// every header of the standard library, whose inline functions must stay runnable on all CPUs.
#pragma once

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma")

#include <immintrin.h>
