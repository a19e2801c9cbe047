// Packs the right-hand matrix of a matrix product into panels, in the order in which a microkernel reads them.
//
// A 4-byte group is four int8 or two bfloat16 values that are adjacent along the depth (the summed dimension). A panel is
// PANEL columns of the right-hand matrix, stored as the groups of all its columns at depth 0, then those at depth 1, and so on.
//
// A microkernel is a type that multiplies rows of the left-hand matrix by a panel. It has these members:
// - ROWS, PANEL, VECTORS: rows and columns of its tiles; vector registers per tile row.
// - STEP: 4-byte groups of the depth per step. PANELS_IN_FLIGHT: number of panels that a linear multiplies in one pass.
// - Int8Dot, Bf16Dot: the type of the sums, and UNSIGNED_OFFSET, which is XORed into the packed columns.
// - for_each_tile: splits rows into tiles. A tile's `add` may call an `overlap` callback between its steps.
// - TileWriter: calls a function for the rows of finished tiles, at once or during the steps of the next tile.
#pragma once

#include <cstdint>

#include "target_avx512.h"
#include "threads.h"

namespace allaprima {

using Group4 = std::uint32_t;

// The overlap callback that does nothing.
struct NoOverlap {
    void operator()() const {}
};

// Rounds a number of 4-byte groups up to a multiple of STEP.
template <class Microkernel>
constexpr Index round_up_to_step(Index groups) {
    return (groups + Microkernel::STEP - 1) / Microkernel::STEP * Microkernel::STEP;
}

// Transposes 16 x 16 four-byte values in registers.
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

// Packs `columns` columns into a panel. A column is `bytes` contiguous bytes; columns are `stride` bytes apart. The depth is padded
// to a multiple of STEP, and missing columns up to PANEL are padded; the padding is zero before the unsigned offset is applied.
template <class Microkernel, class Dot>
void pack_panel(const std::uint8_t* from, Index stride, Index columns, Index bytes, Group4* panel) {
    const __m512i offset = _mm512_set1_epi32(int(Dot::UNSIGNED_OFFSET));
    for (Index first = 0; first < Microkernel::PANEL; first += 16) {
        for (Index byte = 0; byte < bytes; byte += 64) {
            const Index left = bytes - byte;
            const __mmask64 mask = left >= 64 ? ~__mmask64(0) : (__mmask64(1) << left) - 1;
            __m512i r[16];
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) {
                const bool is_column = first + i < columns;
                r[i] = is_column ? _mm512_maskz_loadu_epi8(mask, from + (first + i) * stride + byte)
                                : _mm512_setzero_si512();
                r[i] = _mm512_xor_si512(r[i], offset);
            }
            transpose(r);
            const Index groups = left >= 64 ? 16 : round_up_to_step<Microkernel>((left + 3) / 4);
            for (Index i = 0; i < groups; ++i) _mm512_storeu_si512(panel + (byte / 4 + i) * Microkernel::PANEL + first, r[i]);
        }
    }
}

}  // namespace allaprima
