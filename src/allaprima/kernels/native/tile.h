// The product of a few rows and a panel of columns, which is nearly all that a FLUX model does.
//
// A "word" is four bytes: four int8 or two bfloat16 numbers of one row, side by side in the depth. A panel is PANEL columns
// of the right-hand matrix, word after word: the words of all its columns at one depth lie together, four registers of them.
// A tile holds ROWS x PANEL sums in 24 of the 32 registers. Sums run over the depth in order, one word after another, so
// that a row's sums are the same in whatever tile it is.
#pragma once

#include <cstdint>

#include "target_avx512.h"
#include "threads.h"

namespace allaprima {

using Word = std::uint32_t;

constexpr int ROWS = 6, PANEL = 64, VECTORS = PANEL / 16;

inline __m512i broadcast(const std::uint8_t* from) {
    Word word;
    __builtin_memcpy(&word, from, sizeof word);  // rows of bfloat16 may begin at any even address
    return _mm512_set1_epi32(int(word));
}

// int8 rows times int8 columns of which each number was raised by 128: one factor of the instruction has no sign.
struct Int8Dot {
    using Sums = __m512i;
    static constexpr Word RAISE = 0x80808080;
    static Sums zero() { return _mm512_setzero_si512(); }
    static Sums load(const void* from) { return _mm512_loadu_si512(from); }
    static void store(void* to, Sums sums) { _mm512_storeu_si512(to, sums); }
    static Sums add(Sums sums, __m512i row, __m512i columns) { return _mm512_dpbusd_epi32(sums, columns, row); }
};

// bfloat16 times bfloat16, summed in float32.
struct Bf16Dot {
    using Sums = __m512;
    static constexpr Word RAISE = 0;
    static Sums zero() { return _mm512_setzero_ps(); }
    static Sums load(const void* from) { return _mm512_loadu_ps(from); }
    static void store(void* to, Sums sums) { _mm512_storeu_ps(to, sums); }
    static Sums add(Sums sums, __m512i row, __m512i columns) {
        return _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(row), reinterpret_cast<__m512bh>(columns));
    }
};

template <class Dot, int M>
struct Tile {
    typename Dot::Sums sums[M][VECTORS];

    __attribute__((always_inline)) void clear() {
#pragma GCC unroll 24
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[m][v] = Dot::zero();
    }

    // Partial sums, PANEL four-byte values a row.
    __attribute__((always_inline)) void load(const Word* from) {
#pragma GCC unroll 24
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[m][v] = Dot::load(from + m * PANEL + v * 16);
    }

    __attribute__((always_inline)) void store(Word* to) const {
#pragma GCC unroll 24
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) Dot::store(to + m * PANEL + v * 16, sums[m][v]);
    }

    // Add `depth` words of M rows, `stride` bytes apart, times a panel.
    __attribute__((always_inline)) void add(const void* rows, Index stride, const Word* panel, Index depth) {
        typename Dot::Sums local[M][VECTORS];
#pragma GCC unroll 24
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) local[m][v] = sums[m][v];
        for (Index d = 0; d < depth; ++d) {
            __m512i columns[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) columns[v] = _mm512_loadu_si512(panel + d * PANEL + v * 16);
#pragma GCC unroll 24
            for (int m = 0; m < M; ++m) {
                const __m512i row = broadcast(static_cast<const std::uint8_t*>(rows) + m * stride + d * Index(sizeof(Word)));
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) local[m][v] = Dot::add(local[m][v], row, columns[v]);
            }
        }
#pragma GCC unroll 24
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[m][v] = local[m][v];
    }
};

// Call `work` with a tile of each height that `rows` rows are cut into, and the tile's first row.
template <class Dot, class Work>
__attribute__((always_inline)) inline void tiles(Index rows, const Work& work) {
    Index row = 0;
    for (; row + ROWS <= rows; row += ROWS) work(Tile<Dot, ROWS>{}, row);
    switch (rows - row) {
        case 5: return work(Tile<Dot, 5>{}, row);
        case 4: return work(Tile<Dot, 4>{}, row);
        case 3: return work(Tile<Dot, 3>{}, row);
        case 2: return work(Tile<Dot, 2>{}, row);
        case 1: return work(Tile<Dot, 1>{}, row);
        default: return;
    }
}

// Transpose 16 x 16 four-byte values in registers.
inline void transpose(__m512i (&r)[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

// Lay `columns` columns, the numbers of each in `bytes` bytes of memory, `stride` bytes from one column to the next, out as a
// panel. What the panel has beyond them is zero, before it is raised.
template <class Dot>
void pack_panel(const std::uint8_t* from, Index stride, Index columns, Index bytes, Word* panel) {
    const __m512i raise = _mm512_set1_epi32(int(Dot::RAISE));
    for (Index group = 0; group < PANEL; group += 16) {
        for (Index byte = 0; byte < bytes; byte += 64) {
            const Index left = bytes - byte;
            const __mmask64 mask = left >= 64 ? ~__mmask64(0) : (__mmask64(1) << left) - 1;
            __m512i r[16];
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) {
                const bool is_there = group + i < columns;
                r[i] = is_there ? _mm512_maskz_loadu_epi8(mask, from + (group + i) * stride + byte)
                                : _mm512_setzero_si512();
                r[i] = _mm512_xor_si512(r[i], raise);
            }
            transpose(r);
            const Index words = left >= 64 ? 16 : (left + 3) / 4;
            for (Index i = 0; i < words; ++i) _mm512_storeu_si512(panel + (byte / 4 + i) * PANEL + group, r[i]);
        }
    }
}

}  // namespace allaprima
