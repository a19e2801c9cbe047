// The right-hand side of a product: panels of columns, in the order of their use.
//
// A "word" is four bytes: four int8 or two bfloat16 numbers of one row, side by side in the depth. A panel is some columns of the
// right-hand matrix, word after word: the words of all its columns at one depth lie together.
//
// What multiplies a panel is a "core", a type that says: how many rows and columns its tiles have (ROWS, PANEL; VECTORS registers of
// columns); how many panels a linear does abreast (ABREAST), and how many words of the depth in a step (STEP); what it multiplies
// (Int8Dot, Bf16Dot: the type of its sums, and by what the columns' words are raised); how rows are cut into tiles, which may do
// something else between their steps (`meanwhile`); and when a finished tile's rows are given to whoever wants them (Results).
#pragma once

#include <cstdint>

#include "target_avx512.h"
#include "threads.h"

namespace allaprima {

using Word = std::uint32_t;

// What is done between the steps of a product: nothing.
struct Nothing {
    void operator()() const {}
};

// Words of the depth, with those that fill the last step.
template <class Core>
constexpr Index whole_steps(Index words) {
    return (words + Core::STEP - 1) / Core::STEP * Core::STEP;
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
// panel of whole steps. What the panel has beyond them is zero, before it is raised.
template <class Core, class Dot>
void pack_panel(const std::uint8_t* from, Index stride, Index columns, Index bytes, Word* panel) {
    const __m512i raise = _mm512_set1_epi32(int(Dot::RAISE));
    for (Index group = 0; group < Core::PANEL; group += 16) {
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
            const Index words = left >= 64 ? 16 : whole_steps<Core>((left + 3) / 4);
            for (Index i = 0; i < words; ++i) _mm512_storeu_si512(panel + (byte / 4 + i) * Core::PANEL + group, r[i]);
        }
    }
}

}  // namespace allaprima
