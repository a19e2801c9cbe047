// Products of some rows and a panel of columns in the tile registers of AMX, which multiply 16 x 16 sums by 64 bytes at once.
//
// A tile here is two by two of them, 32 rows x 32 columns: four registers of sums, two of rows, two of columns. A row's sums are the
// same in whatever tile it is. int8 is exact, and so has the bits of every other core; bfloat16 is summed in another order.
#pragma once

#include <cstdint>
#include <type_traits>

#include "panel.h"

#if ALLAPRIMA_HAS_AMX

namespace allaprima {

// One a task, since it holds its thread's tile registers.
class Amx {
public:
    static constexpr int ROWS = 32, PANEL = 32, VECTORS = PANEL / 16;
    static constexpr Index STEP = 16, ABREAST = 8;  // panels of 768 words: 768 KiB, of an L2 cache of 2 MiB

    struct Int8Dot {
        using Sums = __m512i;
        static constexpr Word RAISE = 0;
        static Sums load(const void* from) { return _mm512_load_si512(from); }
    };

    struct Bf16Dot {
        using Sums = __m512;
        static constexpr Word RAISE = 0;
        static Sums load(const void* from) { return _mm512_load_ps(from); }
    };

    Amx() = default;
    Amx(const Amx&) = delete;
    Amx& operator=(const Amx&) = delete;
    ~Amx() { _tile_release(); }

    // Up to 16 rows, or up to 32, where `IS_HIGH`. Its sums are in the registers: one tile at a time.
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

        // Partial sums, rows of four-byte values `stride` of them apart.
        __attribute__((always_inline)) void load(const Word* from, Index stride) const {
            const Index bytes = stride * Index(sizeof(Word));
            barrier();
            _tile_loadd(0, from, bytes);
            _tile_loadd(1, from + 16, bytes);
            if constexpr (IS_HIGH) {
                _tile_loadd(2, from + 16 * stride, bytes);
                _tile_loadd(3, from + 16 * stride + 16, bytes);
            }
        }

        __attribute__((always_inline)) void store(Word* to, Index stride) const {
            const Index bytes = stride * Index(sizeof(Word));
            barrier();
            _tile_stored(0, to, bytes);
            _tile_stored(1, to + 16, bytes);
            if constexpr (IS_HIGH) {
                _tile_stored(2, to + 16 * stride, bytes);
                _tile_stored(3, to + 16 * stride + 16, bytes);
            }
            barrier();
        }

        // Add `depth` words, whole steps, of the rows, `stride` bytes apart, times a panel. `meanwhile` is called in every step: the
        // tiles are busy for 64 cycles of it, and the other registers are not.
        template <class Meanwhile = Nothing>
        __attribute__((always_inline)) void add(const void* rows, Index stride, const Word* panel, Index depth,
                                                const Meanwhile& meanwhile = {}) const {
            const auto* row = static_cast<const std::uint8_t*>(rows);
            constexpr Index WIDTH = PANEL * sizeof(Word);
            barrier();
            for (Index d = 0; d < depth; d += STEP, row += STEP * Index(sizeof(Word)), panel += STEP * PANEL) {
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
                meanwhile();
            }
        }

        // Call `work` with each row's number and its VECTORS registers of sums.
        template <class Work>
        __attribute__((always_inline)) void each_row(const Work& work) const {
            alignas(64) Word found[ROWS * PANEL];
            store(found, PANEL);
            for (Index m = 0; m < height; ++m) {
                const typename Dot::Sums sums[VECTORS] = {Dot::load(found + m * PANEL), Dot::load(found + m * PANEL + 16)};
                work(m, sums);
            }
        }

    private:
        // The intrinsics of GCC don't tell the compiler that they read memory.
        static void barrier() { asm volatile("" ::: "memory"); }

        template <int SUMS, int ROW, int COLUMNS>
        static void multiply() {
            // The intrinsics take nothing but literals.
            if constexpr (std::is_same_v<Dot, Int8Dot>)
                asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(ROW), "i"(COLUMNS));
            else asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(ROW), "i"(COLUMNS));
        }
    };

    // Gives each row of a finished tile to `work`: its number, the tile's column, its sums. A row at a time, in the steps of the tile
    // that comes next, so that the products go on.
    template <class Dot, class Work>
    class Results {
    public:
        explicit Results(const Work& work) : work_(work) {}

        template <class Tile>
        __attribute__((always_inline)) void take(const Tile& tile, Index row, Index column) {
            drain();
            tile.store(sums_, PANEL);
            row_ = row;
            column_ = column;
            height_ = tile.height;
            next_ = 0;
            idle_ = LATENCY;
        }

        __attribute__((always_inline)) void step() {
            if (idle_ > 0) --idle_;
            else if (next_ < height_) give();
        }

        void drain() {
            while (next_ < height_) give();
        }

    private:
        static constexpr Index LATENCY = 8;  // steps until a tile's sums are in memory

        const Work& work_;
        Index row_ = 0, column_ = 0, height_ = 0, next_ = 0, idle_ = 0;
        alignas(64) Word sums_[ROWS * PANEL];

        __attribute__((always_inline)) void give() {
            const Word* from = sums_ + next_ * PANEL;
            const typename Dot::Sums sums[VECTORS] = {Dot::load(from), Dot::load(from + 16)};
            work_(row_ + next_++, column_, sums);
        }
    };

    // Call `work` with a tile of each height that `rows` rows are cut into, and the tile's first row.
    template <class Dot, class Work>
    __attribute__((always_inline)) void tiles(Index rows, const Work& work) {
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
    Index height_ = 0;  // that the registers are configured for

    // Rows that are not there are neither read nor written.
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
