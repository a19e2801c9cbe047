// What this CPU's cores reach at most in int8 (VNNI) and bfloat16 products: registers only, no memory. Two threads.
// Prints "GOP/s GFLOP/s". `bench/kernels.py` compiles and runs it.

#include <chrono>
#include <cstdio>
#include <thread>

#pragma GCC target("avx512f,avx512vnni,avx512bf16")

#include <immintrin.h>

namespace {

constexpr int SUMS = 24;
constexpr long ROUNDS = 50'000'000;

template <class Instruction>
double rate(int operations, const Instruction& instruction) {
    const auto run = [&] {
        __m512i sums[SUMS];
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; ++i) sums[i] = _mm512_setzero_si512();
        const __m512i ones = _mm512_set1_epi8(1);
        for (long round = 0; round < ROUNDS; ++round)
#pragma GCC unroll 24
            for (int i = 0; i < SUMS; ++i) instruction(sums[i], ones);
    };
    const auto started = std::chrono::steady_clock::now();
    std::thread other(run);
    run();
    other.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
    return 2e-9 * ROUNDS * SUMS * operations / seconds.count();
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
}
