// The exact int8 matrix product for CPUs that have AVX2 but no AVX-512. int8 values are widened to pairs of int16.
//
// Source of the blocking: Goto and van de Geijn 2008 ("Anatomy of High-Performance Matrix Multiplication"), section 4. One panel of
// columns stays in the L1 cache and a group of panels in the L2 cache, while the packed rows are streamed.

#include <algorithm>

#include "kernels.h"
#include "scratch.h"
#include "threads.h"

#pragma GCC target("avx2")

#include <immintrin.h>

namespace allaprima {
namespace {

constexpr int ROWS = 6, PANEL = 16;  // rows and columns of a tile, whose sums use 12 of the 16 registers
constexpr Index DEPTH = 512;         // depth of a pass, in pairs; a panel then takes 32 KiB
constexpr Index GROUP = 8;           // panels per task, which take 256 KiB

// Two consecutive values of a row, each as int16.
using Pair = std::int32_t;

struct RowsTag {};
struct PanelTag {};

// Packs `count` rows or columns ("lines") of `length` values as interleaved pairs: pair 0 of all lines, then pair 1, and so on.
// Missing lines up to LINES and the second value of an incomplete last pair are zero.
template <int LINES>
void interleave(const std::int8_t* from, Index stride, Index count, Index length, Pair* to) {
    const auto pair = [](std::int8_t first, std::int8_t second) {
        return Pair(std::uint32_t(std::uint16_t(first)) | std::uint32_t(std::uint16_t(second)) << 16);
    };
    for (int line = 0; line < LINES; ++line) {
        const std::int8_t* numbers = from + line * stride;
        const Index whole = line < count ? length / 2 : 0;
        for (Index p = 0; p < whole; ++p) to[p * LINES + line] = pair(numbers[2 * p], numbers[2 * p + 1]);
        for (Index p = whole; p < (length + 1) / 2; ++p)
            to[p * LINES + line] = line < count ? pair(numbers[2 * p], 0) : 0;
    }
}

// The sums of one row of a tile.
struct Row {
    __m256i left, right;
};

inline void add(Row& sums, Pair pair, __m256i first, __m256i second) {
    const __m256i row = _mm256_set1_epi32(pair);
    sums.left = _mm256_add_epi32(sums.left, _mm256_madd_epi16(row, first));
    sums.right = _mm256_add_epi32(sums.right, _mm256_madd_epi16(row, second));
    // This barrier makes the compiler compute one row after another: the products of all rows would not fit in the registers.
    asm("" : "+x"(sums.left), "+x"(sums.right));
}

inline void store(const Row& sums, std::int32_t* to) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), sums.left);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + 8), sums.right);
}

// Multiplies one tile and overwrites `out` if `is_first`, otherwise adds to it. Only the first `rows` rows and `columns` columns of
// the tile are written.
void multiply(const Pair* lines, const Pair* panel, Index pairs, bool is_first, Index rows, Index columns,
              std::int32_t* out, Index out_stride) {
    // These are separate variables, since GCC would store an array in memory instead of registers.
    const Row zero = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    Row a = zero, b = zero, c = zero, d = zero, e = zero, f = zero;
    for (Index p = 0; p < pairs; ++p, lines += ROWS, panel += PANEL) {
        const auto* columns_of = reinterpret_cast<const __m256i*>(panel);
        const __m256i first = _mm256_load_si256(columns_of), second = _mm256_load_si256(columns_of + 1);
        add(a, lines[0], first, second);
        add(b, lines[1], first, second);
        add(c, lines[2], first, second);
        add(d, lines[3], first, second);
        add(e, lines[4], first, second);
        add(f, lines[5], first, second);
    }
    alignas(32) std::int32_t sums[ROWS][PANEL];
    store(a, sums[0]);
    store(b, sums[1]);
    store(c, sums[2]);
    store(d, sums[3]);
    store(e, sums[4]);
    store(f, sums[5]);
    for (Index m = 0; m < rows; ++m) {
        std::int32_t* to = out + m * out_stride;
        for (Index column = 0; column < columns; ++column)
            to[column] = is_first ? sums[m][column] : to[column] + sums[m][column];
    }
}

}  // namespace
}  // namespace allaprima

using namespace allaprima;

extern "C" void allaprima_product_int8_avx2(const std::int8_t* rows, const std::int8_t* weight, Index m, Index n, Index k,
                                            std::int32_t* out, int threads) {
    const Index pairs = (k + 1) / 2, tiles = (m + ROWS - 1) / ROWS;
    Pair* lines = scratch<RowsTag, Pair>(tiles * ROWS * pairs);
    parallel_for(tiles, threads, [&](Index tile) {
        interleave<ROWS>(rows + tile * ROWS * k, k, std::min<Index>(ROWS, m - tile * ROWS), k,
                         lines + tile * ROWS * pairs);
    });
    const Index panels = (n + PANEL - 1) / PANEL;
    parallel_for((panels + GROUP - 1) / GROUP, threads, [&](Index task) {
        Pair* group = scratch<PanelTag, Pair>(GROUP * DEPTH * PANEL);
        const Index first = task * GROUP, count = std::min(GROUP, panels - first);
        const auto columns = [&](Index panel) { return std::min<Index>(PANEL, n - (first + panel) * PANEL); };
        for (Index begin = 0; begin < pairs; begin += DEPTH) {
            const Index depth = std::min(DEPTH, pairs - begin), length = std::min(2 * depth, k - 2 * begin);
            for (Index panel = 0; panel < count; ++panel)
                interleave<PANEL>(weight + (first + panel) * PANEL * k + 2 * begin, k, columns(panel), length,
                                  group + panel * DEPTH * PANEL);
            for (Index tile = 0; tile < tiles; ++tile)
                for (Index panel = 0; panel < count; ++panel)
                    multiply(lines + (tile * pairs + begin) * ROWS, group + panel * DEPTH * PANEL, depth, begin == 0,
                             std::min<Index>(ROWS, m - tile * ROWS), columns(panel),
                             out + tile * ROWS * n + (first + panel) * PANEL, n);
        }
    });
}
