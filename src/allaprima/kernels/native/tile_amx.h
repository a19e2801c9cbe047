// The AMX microkernel. A tile register holds 16 x 16 sums, or 16 rows of 64 bytes.
//
// A tile of this microkernel has 2 x 2 registers of sums, for 32 rows x 32 columns; two more registers hold its rows and two its
// columns. The sums of a row do not depend on the other rows of its tile. int8 sums are exact and equal those of the AVX-512
// microkernel; bfloat16 products are summed in another order.
#pragma once

#include <cstdint>
#include <type_traits>

#include "panel.h"

#if ALLAPRIMA_HAS_AMX

namespace allaprima {

// Configures and releases the tile registers of the current thread. Each task creates an object.
class Amx {
public:
    static constexpr int ROWS = 32, PANEL = 32, VECTORS = PANEL / 16;
    static constexpr Index STEP = 16, PANELS_IN_FLIGHT = 8;  // 8 panels with a depth of 768 groups take 768 KiB of a 2 MiB L2 cache

    struct Int8Dot {
        using Sums = __m512i;
        static constexpr Group4 UNSIGNED_OFFSET = 0;
        static Sums load(const void* from) { return _mm512_load_si512(from); }
    };

    struct Bf16Dot {
        using Sums = __m512;
        static constexpr Group4 UNSIGNED_OFFSET = 0;
        static Sums load(const void* from) { return _mm512_load_ps(from); }
    };

    Amx() = default;
    Amx(const Amx&) = delete;
    Amx& operator=(const Amx&) = delete;
    ~Amx() { _tile_release(); }

    // A tile of up to 32 rows if IS_HIGH, otherwise up to 16. Its sums are in the tile registers, so only one tile can exist at a
    // time.
    template <class Dot, bool IS_HIGH>
    struct Tile {
        Index height;

        __attribute__((always_inline)) void clear() const {
            _tile_zero(0);
            _tile_zero(1);
            if constexpr (IS_HIGH) {
                _tile_zero(2);
                _tile_zero(3);
            }
        }

        // Loads partial sums of four bytes each; rows are `stride` values apart.
        __attribute__((always_inline)) void load(const Group4* from, Index stride) const {
            const Index bytes = stride * Index(sizeof(Group4));
            barrier();
            _tile_loadd(0, from, bytes);
            _tile_loadd(1, from + 16, bytes);
            if constexpr (IS_HIGH) {
                _tile_loadd(2, from + 16 * stride, bytes);
                _tile_loadd(3, from + 16 * stride + 16, bytes);
            }
        }

        __attribute__((always_inline)) void store(Group4* to, Index stride) const {
            const Index bytes = stride * Index(sizeof(Group4));
            barrier();
            _tile_stored(0, to, bytes);
            _tile_stored(1, to + 16, bytes);
            if constexpr (IS_HIGH) {
                _tile_stored(2, to + 16 * stride, bytes);
                _tile_stored(3, to + 16 * stride + 16, bytes);
            }
            barrier();
        }

        // Adds the product of rows, which are `stride` bytes apart, and a panel. `depth` is in 4-byte groups, a multiple of STEP.
        // `overlap` is called in every step: the tile unit takes about 64 cycles per step, in which the vector units are idle.
        template <class Overlap = NoOverlap>
        __attribute__((always_inline)) void add(const void* rows, Index stride, const Group4* panel, Index depth,
                                                const Overlap& overlap = {}) const {
            const auto* row = static_cast<const std::uint8_t*>(rows);
            constexpr Index WIDTH = PANEL * sizeof(Group4);
            barrier();
            for (Index d = 0; d < depth; d += STEP, row += STEP * Index(sizeof(Group4)), panel += STEP * PANEL) {
                _tile_loadd(4, row, stride);
                _tile_loadd(6, panel, WIDTH);
                multiply<0, 4, 6>();
                if constexpr (IS_HIGH) {
                    _tile_loadd(5, row + 16 * stride, stride);
                    multiply<2, 5, 6>();
                }
                _tile_loadd(7, panel + 16, WIDTH);
                multiply<1, 4, 7>();
                if constexpr (IS_HIGH) multiply<3, 5, 7>();
                overlap();
            }
        }

        // Calls `work` with the index of each row and its VECTORS registers of sums.
        template <class Work>
        __attribute__((always_inline)) void for_each_row(const Work& work) const {
            alignas(64) Group4 stored[ROWS * PANEL];
            store(stored, PANEL);
            for (Index m = 0; m < height; ++m) {
                const typename Dot::Sums sums[VECTORS] = {Dot::load(stored + m * PANEL), Dot::load(stored + m * PANEL + 16)};
                work(m, sums);
            }
        }

    private:
        // GCC does not know that the tile intrinsics access memory.
        static void barrier() { asm volatile("" ::: "memory"); }

        template <int SUMS, int ROW, int COLUMNS>
        static void multiply() {
            // The intrinsics accept literals only, not template arguments, so the instructions are written in assembly.
            if constexpr (std::is_same_v<Dot, Int8Dot>)
                asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(ROW), "i"(COLUMNS));
            else asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(ROW), "i"(COLUMNS));
        }
    };

    // Calls `work(row, column, sums)` for each row of a finished tile: one row per step of the next tile, so that the tile unit is
    // never idle.
    template <class Dot, class Work>
    class TileWriter {
    public:
        explicit TileWriter(const Work& work) : work_(work) {}

        template <class Tile>
        __attribute__((always_inline)) void submit(const Tile& tile, Index row, Index column) {
            drain();
            tile.store(sums_, PANEL);
            row_ = row;
            column_ = column;
            height_ = tile.height;
            next_ = 0;
            wait_ = LATENCY;
        }

        __attribute__((always_inline)) void step() {
            if (wait_ > 0) --wait_;
            else if (next_ < height_) write_next_row();
        }

        void drain() {
            while (next_ < height_) write_next_row();
        }

    private:
        static constexpr Index LATENCY = 8;  // steps until the stored sums can be read without a stall

        const Work& work_;
        Index row_ = 0, column_ = 0, height_ = 0, next_ = 0, wait_ = 0;
        alignas(64) Group4 sums_[ROWS * PANEL];

        __attribute__((always_inline)) void write_next_row() {
            const Group4* from = sums_ + next_ * PANEL;
            const typename Dot::Sums sums[VECTORS] = {Dot::load(from), Dot::load(from + 16)};
            work_(row_ + next_++, column_, sums);
        }
    };

    // Splits `rows` rows into tiles and calls `work(tile, first row)` for each.
    template <class Dot, class Work>
    __attribute__((always_inline)) void for_each_tile(Index rows, const Work& work) {
        Index row = 0;
        for (; row + ROWS <= rows; row += ROWS) {
            configure(ROWS);
            work(Tile<Dot, true>{ROWS}, row);
        }
        const Index left = rows - row;
        if (left == 0) return;
        configure(left);
        if (left > 16) work(Tile<Dot, true>{left}, row);
        else work(Tile<Dot, false>{left}, row);
    }

private:
    Index height_ = 0;  // the tile height for which the registers are configured

    // Configures the tile registers for tiles of `height` rows. Rows beyond `height` are neither read nor written.
    void configure(Index height) {
        if (height == height_) return;
        struct {
            std::uint8_t palette = 1, start = 0, reserved[14] = {};
            std::uint16_t bytes[16] = {};
            std::uint8_t rows[16] = {};
        } config;
        static_assert(sizeof config == 64);
        const auto upper = std::uint8_t(height < 16 ? height : 16), lower = std::uint8_t(height > 16 ? height - 16 : 16);
        const std::uint8_t rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
        for (int i = 0; i < 8; ++i) {
            config.rows[i] = rows[i];
            config.bytes[i] = 64;
        }
        asm volatile("ldtilecfg %0" ::"m"(config));
        height_ = height;
    }
};

}  // namespace allaprima

#endif
