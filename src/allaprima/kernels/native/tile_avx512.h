// The AVX-512 microkernel, with VNNI and BF16.
//
// A tile holds up to ROWS x PANEL sums in 24 of the 32 registers. Products are summed in the order of the depth, one 4-byte group
// after another, so the sums of a row do not depend on the other rows of its tile.
#pragma once

#include <cstdint>

#include "panel.h"

namespace allaprima {

inline __m512i broadcast(const std::uint8_t* from) {
    Group4 group;
    __builtin_memcpy(&group, from, sizeof group);  // rows may be unaligned
    return _mm512_set1_epi32(int(group));
}

struct Avx512 {
    static constexpr int ROWS = 6, PANEL = 64, VECTORS = PANEL / 16;
    static constexpr Index STEP = 1, PANELS_IN_FLIGHT = 2;

    // int8 times int8, summed in int32. vpdpbusd multiplies unsigned by signed values, so the packed columns are XORed with 0x80,
    // which adds an offset of 128.
    struct Int8Dot {
        using Sums = __m512i;
        static constexpr Group4 UNSIGNED_OFFSET = 0x80808080;
        static Sums zero() { return _mm512_setzero_si512(); }
        static Sums load(const void* from) { return _mm512_loadu_si512(from); }
        static void store(void* to, Sums sums) { _mm512_storeu_si512(to, sums); }
        static Sums add(Sums sums, __m512i row, __m512i columns) { return _mm512_dpbusd_epi32(sums, columns, row); }
    };

    // bfloat16 times bfloat16, summed in float32.
    struct Bf16Dot {
        using Sums = __m512;
        static constexpr Group4 UNSIGNED_OFFSET = 0;
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

        // Loads partial sums of four bytes each; rows are `stride` values apart.
        __attribute__((always_inline)) void load(const Group4* from, Index stride) {
#pragma GCC unroll 24
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) sums[m][v] = Dot::load(from + m * stride + v * 16);
        }

        __attribute__((always_inline)) void store(Group4* to, Index stride) const {
#pragma GCC unroll 24
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) Dot::store(to + m * stride + v * 16, sums[m][v]);
        }

        // Adds the product of M rows, which are `stride` bytes apart, and a panel. `depth` is in 4-byte groups. The overlap
        // callback is not called, since the product itself uses the vector units.
        template <class Overlap = NoOverlap>
        __attribute__((always_inline)) void add(const void* rows, Index stride, const Group4* panel, Index depth,
                                                const Overlap& = {}) {
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
                    const __m512i row = broadcast(static_cast<const std::uint8_t*>(rows) + m * stride + d * Index(sizeof(Group4)));
#pragma GCC unroll 4
                    for (int v = 0; v < VECTORS; ++v) local[m][v] = Dot::add(local[m][v], row, columns[v]);
                }
            }
#pragma GCC unroll 24
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) sums[m][v] = local[m][v];
        }

        // Calls `work` with the index of each row and its VECTORS registers of sums.
        template <class Work>
        __attribute__((always_inline)) void for_each_row(const Work& work) const {
            for (int m = 0; m < M; ++m) work(Index(m), sums[m]);
        }
    };

    // Calls `work(row, column, sums)` for each row of a finished tile, at once.
    template <class Dot, class Work>
    class TileWriter {
    public:
        explicit TileWriter(const Work& work) : work_(work) {}

        template <class Tile>
        __attribute__((always_inline)) void submit(const Tile& tile, Index row, Index column) {
            for (const auto& sums : tile.sums) work_(row++, column, sums);
        }

        void step() {}
        void drain() {}

    private:
        const Work& work_;
    };

    // Splits `rows` rows into tiles and calls `work(tile, first row)` for each.
    template <class Dot, class Work>
    __attribute__((always_inline)) void for_each_tile(Index rows, const Work& work) {
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
};

}  // namespace allaprima
