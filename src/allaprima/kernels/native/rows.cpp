// Kernels that compute each row separately: quantization to int8, norms, and the norm and rotary positions of queries and keys.

#include <algorithm>
#include <limits>

#include "kernels.h"
#include "threads.h"
#include "vectors.h"

namespace allaprima {
namespace {

constexpr Index ROWS_PER_TASK = 16;

// Calls `work(row)` for every row below `rows`. A parallel task has ROWS_PER_TASK rows.
template <class Work>
void for_each_row(Index rows, int threads, const Work& work) {
    parallel_for((rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, threads, [&](Index task) {
        for (Index row = task * ROWS_PER_TASK; row < std::min(rows, (task + 1) * ROWS_PER_TASK); ++row) work(row);
    });
}

// Returns the sum of term(x) over the values x of a row. The order of the additions depends on the width alone.
template <class Term>
float sum_row(const Bf16* row, Index width, const Term& term) {
    Floats total = _mm512_setzero_ps();
    for (Index i = 0; i < width; i += 16) {
        const __mmask16 mask = lanes(width - i);
        total = _mm512_add_ps(total, _mm512_maskz_mov_ps(mask, term(load(row + i, mask))));
    }
    return _mm512_reduce_add_ps(total);
}

float mean_square(const Bf16* row, Index width) {
    return sum_row(row, width, [](Floats x) { return _mm512_mul_ps(x, x); }) / float(width);
}

}  // namespace
}  // namespace allaprima

using namespace allaprima;

extern "C" void allaprima_quantize(const Bf16* x, Index m, Index k, Index x_stride, std::int8_t* packed, Index depth,
                                   float* scale, std::int32_t* sums, int threads) {
    for_each_row(m, threads, [&](Index row) {
        const Bf16* from = x + row * x_stride;
        std::int8_t* to = packed + row * depth;
        // Without the sign bit, the bits of bfloat16 values have the order of their absolute values; infinity and NaN are the
        // largest.
        __m512i top = _mm512_setzero_si512();
        const __m512i unsigned_bits = _mm512_set1_epi16(0x7fff);
        for (Index i = 0; i < k; i += 32) {
            const __mmask32 mask = k - i >= 32 ? ~__mmask32(0) : (__mmask32(1) << (k - i)) - 1;
            top = _mm512_max_epu16(top, _mm512_and_si512(_mm512_maskz_loadu_epi16(mask, from + i), unsigned_bits));
        }
        // The maxima of the even and of the odd values of `top`, widened to 32 bits, for which there is a horizontal maximum.
        const __m512i pairs = _mm512_max_epu32(_mm512_and_si512(top, _mm512_set1_epi32(0xffff)), _mm512_srli_epi32(top, 16));
        const float largest = widen(Bf16(_mm512_reduce_max_epu32(pairs)));
        scale[row] = largest / 127;
        // The result must equal that of `quantize_rows` in quantized.py, bit for bit.
        const Floats inverse = _mm512_set1_ps(scale[row] >= std::numeric_limits<float>::min() ? 1 / scale[row] : 1);
        const auto round = [&](Index i, __mmask16 mask) __attribute__((always_inline)) {
            const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load(from + i, mask), inverse));
            // The conversion to int8 saturates at 127 and -128, but the lower limit of the quantization is -127.
            return _mm512_max_epi32(rounded, _mm512_set1_epi32(-127));
        };
        __m512i total = _mm512_setzero_si512();
        Index i = 0;
        for (; i + 16 <= k; i += 16) {
            const __m512i rounded = round(i, 0xffff);
            total = _mm512_add_epi32(total, rounded);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm512_cvtsepi32_epi8(rounded));
        }
        for (; i < depth; i += 16) {
            const __m512i rounded = round(i, lanes(k - i));
            total = _mm512_add_epi32(total, rounded);
            _mm_mask_storeu_epi8(to + i, lanes(depth - i), _mm512_cvtsepi32_epi8(rounded));
        }
        sums[row] = _mm512_reduce_add_epi32(total);
    });
}

extern "C" void allaprima_modulate(const Bf16* x, Index m, Index width, Index x_stride, const Bf16* shift, const Bf16* scale,
                                   float eps, Bf16* out, int threads) {
    for_each_row(m, threads, [&](Index row) {
        const Bf16* from = x + row * x_stride;
        const float mean = sum_row(from, width, [](Floats x) { return x; }) / float(width);
        const Floats center = _mm512_set1_ps(mean);
        const float variance = sum_row(from, width, [&](Floats x) {
            const Floats deviation = _mm512_sub_ps(x, center);
            return _mm512_mul_ps(deviation, deviation);
        }) / float(width);
        const Floats inverse = _mm512_set1_ps(1 / __builtin_sqrtf(variance + eps));
        for (Index i = 0; i < width; i += 16) {
            const __mmask16 mask = lanes(width - i);
            const Floats normed = _mm512_mul_ps(_mm512_sub_ps(load(from + i, mask), center), inverse);
            const Floats factor = _mm512_add_ps(_mm512_set1_ps(1.f), load(scale + i, mask));
            store(out + row * width + i, _mm512_fmadd_ps(normed, factor, load(shift + i, mask)), mask);
        }
    });
}

extern "C" void allaprima_rms_norm(const Bf16* x, Index m, Index width, Index x_stride, const Bf16* scale, float eps, Bf16* out,
                                   int threads) {
    for_each_row(m, threads, [&](Index row) {
        const Bf16* from = x + row * x_stride;
        const Floats inverse = _mm512_set1_ps(1 / __builtin_sqrtf(mean_square(from, width) + eps));
        for (Index i = 0; i < width; i += 16) {
            const __mmask16 mask = lanes(width - i);
            const Floats normed = _mm512_mul_ps(load(from + i, mask), inverse);
            store(out + row * width + i, _mm512_mul_ps(normed, load(scale + i, mask)), mask);
        }
    });
}

extern "C" void allaprima_qk_norm_rope(Bf16* x, Index m, Index heads, Index width, Index x_stride, const Bf16* scale, float eps,
                                 const float* cosines, const float* sines, int threads) {
    // The angle of a pair applies to both of its values, so each cosine and sine is duplicated.
    const __m512i duplicate = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    for_each_row(m, threads, [&](Index row) {
        for (Index head = 0; head < heads; ++head) {
            Bf16* values = x + row * x_stride + head * width;
            const Floats inverse = _mm512_set1_ps(1 / __builtin_sqrtf(mean_square(values, width) + eps));
            for (Index i = 0; i < width; i += 16) {
                const __mmask16 mask = lanes(width - i), pairs = lanes((width - i) / 2) & 0xff;
                const Floats normed = _mm512_mul_ps(_mm512_mul_ps(load(values + i, mask), inverse), load(scale + i, mask));
                const Index pair = (row * width + i) / 2;
                const Floats cosine = _mm512_permutexvar_ps(duplicate, _mm512_maskz_loadu_ps(pairs, cosines + pair));
                const Floats sine = _mm512_permutexvar_ps(duplicate, _mm512_maskz_loadu_ps(pairs, sines + pair));
                const Floats swapped = _mm512_permute_ps(normed, 0xb1);  // the two values of each pair swapped
                // fmaddsub: even values are x cos - y sin, odd values are y cos + x sin, for a pair (x, y).
                store(values + i, _mm512_fmaddsub_ps(normed, cosine, _mm512_mul_ps(swapped, sine)), mask);
            }
        }
    });
}
