// The int8 product for CPUs with AVX2 and no more: exact, in pairs of int16.

#include <algorithm>

#include "kernels.h"
#include "scratch.h"
#include "threads.h"

#pragma GCC target("avx2")

#include <immintrin.h>

namespace allaprima {
namespace {

constexpr int ROWS = 6, PANEL = 16;  // of a tile: 12 of the 16 registers
constexpr Index DEPTH = 1024;        // pairs of a panel at a time: 64 KiB

using Pair = std::int32_t;

struct RowsUser {};
struct PanelUser {};

// Numbers of a row as pairs of int16, with a zero behind an odd one.
void widen(const std::int8_t* from, Index count, std::int16_t* to) {
    Index i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm256_cvtepi8_epi16(bytes));
    }
    for (; i < count; ++i) to[i] = from[i];
    if (count % 2) to[count] = 0;
}

// Pairs of PANEL columns, depth after depth; zeros for columns that are not there.
void pack(const std::int8_t* weight, Index stride, Index columns, Index count, Pair* panel) {
    const Index pairs = (count + 1) / 2;
    std::fill_n(panel, pairs * PANEL, Pair(0));
    auto* numbers = reinterpret_cast<std::int16_t*>(panel);
    for (Index column = 0; column < columns; ++column)
        for (Index k = 0; k < count; ++k)
            numbers[(k / 2 * PANEL + column) * 2 + k % 2] = weight[column * stride + k];
}

// Add to M rows of sums, `out_stride` apart, of which `columns` are there.
template <int M>
void multiply(const std::int16_t* rows, Index stride, const Pair* panel, Index pairs, Index columns, std::int32_t* out,
              Index out_stride) {
    __m256i sums[M][2] = {};
    for (Index p = 0; p < pairs; ++p) {
        const auto* columns_of = reinterpret_cast<const __m256i*>(panel + p * PANEL);
        const __m256i first = _mm256_loadu_si256(columns_of), second = _mm256_loadu_si256(columns_of + 1);
#pragma GCC unroll 6
        for (int m = 0; m < M; ++m) {
            Pair pair;
            __builtin_memcpy(&pair, rows + m * stride + 2 * p, sizeof pair);
            const __m256i row = _mm256_set1_epi32(pair);
            sums[m][0] = _mm256_add_epi32(sums[m][0], _mm256_madd_epi16(row, first));
            sums[m][1] = _mm256_add_epi32(sums[m][1], _mm256_madd_epi16(row, second));
        }
    }
    for (int m = 0; m < M; ++m) {
        alignas(32) std::int32_t found[PANEL];
        _mm256_store_si256(reinterpret_cast<__m256i*>(found), sums[m][0]);
        _mm256_store_si256(reinterpret_cast<__m256i*>(found + 8), sums[m][1]);
        for (Index column = 0; column < columns; ++column) out[m * out_stride + column] += found[column];
    }
}

}  // namespace
}  // namespace allaprima

using namespace allaprima;

extern "C" void allaprima_product_int8_avx2(const std::int8_t* rows, const std::int8_t* weight, Index m, Index n, Index k,
                                            std::int32_t* out, int threads) {
    const Index stride = (k + 1) / 2 * 2;
    std::int16_t* wide = scratch<RowsUser, std::int16_t>(m * stride);
    share(m, threads, [&](Index row) {
        widen(rows + row * k, k, wide + row * stride);
        std::fill_n(out + row * n, n, 0);
    });
    share((n + PANEL - 1) / PANEL, threads, [&](Index task) {
        Pair* panel = scratch<PanelUser, Pair>(DEPTH * PANEL);
        const Index column = task * PANEL, columns = std::min<Index>(PANEL, n - column);
        for (Index begin = 0; begin < k; begin += 2 * DEPTH) {
            const Index count = std::min(2 * DEPTH, k - begin), pairs = (count + 1) / 2;
            pack(weight + column * k + begin, k, columns, count, panel);
            Index row = 0;
            for (; row + ROWS <= m; row += ROWS)
                multiply<ROWS>(wide + row * stride + begin, stride, panel, pairs, columns, out + row * n + column, n);
            for (; row < m; ++row)
                multiply<1>(wide + row * stride + begin, stride, panel, pairs, columns, out + row * n + column, n);
        }
    });
}
