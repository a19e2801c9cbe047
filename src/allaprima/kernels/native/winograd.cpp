// 3x3 convolutions by Winograd's F(2x2, 3x3): 16 multiplications per four output pixels instead of 36.
//
// A 4x4 input tile and the 3x3 weights are each transformed to 16 values. Corresponding values are multiplied and summed over the
// channels, and the 16 sums are transformed to 2x2 output pixels. Tiles start at even rows and columns of the whole image, so the
// results do not depend on the range of rows in a call. Source: Winograd 1980; Lavin and Gray 2015 (1509.09308), section 4.1.

#include "convolution.h"

#include <algorithm>

namespace allaprima {
namespace {

constexpr int TILE_VALUES = 16;           // number of values of a transformed tile
constexpr Index TASK_BYTES = 768 * 1024;  // most bytes of transformed tiles in a task
constexpr Index TASKS_PER_THREAD = 4;     // minimum

struct WeightTag {};
struct FrameTag {};
struct TransformedTag {};
struct ProductTag {};

// Transforms three weights to four values by the matrix G with rows (1, 0, 0), (1/2, 1/2, 1/2), (1/2, -1/2, 1/2), (0, 0, 1).
inline void transform_weight_1d(const float* three, Index stride, float* four, Index out_stride) {
    const float a = three[0], b = three[stride], c = three[2 * stride];
    four[0] = a;
    four[out_stride] = (a + c + b) / 2;
    four[2 * out_stride] = (a + c - b) / 2;
    four[3 * out_stride] = c;
}

// Transforms one panel of the weight (out_channels, channels, 3, 3) and packs it, value by value. A 4-byte group has two channels.
template <class Microkernel>
void pack_weight(const ConvolutionArgs& args, Index panel, Group4* to) {
    constexpr Index PANEL = Microkernel::PANEL;
    const Index depth = args.channels / 2;
    for (Index c = 0; c < PANEL; ++c)
        for (Index d = 0; d < depth; ++d) {
            Group4 groups[TILE_VALUES] = {};
            for (Index half = 0; half < 2 && panel * PANEL + c < args.out_channels; ++half) {
                const Bf16* kernel = args.weight + ((panel * PANEL + c) * args.channels + 2 * d + half) * 9;
                float wide[9], rows[12], transformed[TILE_VALUES];
                for (int i = 0; i < 9; ++i) wide[i] = widen(kernel[i]);
                for (int i = 0; i < 3; ++i) transform_weight_1d(wide + i, 3, rows + i, 3);
                for (int i = 0; i < 4; ++i) transform_weight_1d(rows + 3 * i, 1, transformed + 4 * i, 1);
                for (int i = 0; i < TILE_VALUES; ++i) groups[i] |= Group4(round_to_bf16(transformed[i])) << (16 * half);
            }
            for (int i = 0; i < TILE_VALUES; ++i) to[(i * depth + d) * PANEL + c] = groups[i];
        }
}

// Transforms four input pixels to four values, in place, by the matrix B^T with rows (1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0),
// (0, 1, 0, -1).
inline void transform_input_1d(Floats& a, Floats& b, Floats& c, Floats& d) {
    const Floats first = _mm512_sub_ps(a, c), sum = _mm512_add_ps(b, c), difference = _mm512_sub_ps(c, b);
    d = _mm512_sub_ps(b, d);
    a = first;
    b = sum;
    c = difference;
}

// Transforms one 4x4 tile of a frame. `width` is the frame's width in pixels. The TILE_VALUES results are `stride` values apart.
void transform_input(const Bf16* pixels, Index width, Index channels, Bf16* to, Index stride) {
    for (Index c = 0; c < channels; c += 16) {
        const __mmask16 mask = lanes(channels - c);
        Floats tile[4][4];
#pragma GCC unroll 4
        for (int y = 0; y < 4; ++y) {
#pragma GCC unroll 4
            for (int x = 0; x < 4; ++x) tile[y][x] = load(pixels + (y * width + x) * channels + c, mask);
            transform_input_1d(tile[y][0], tile[y][1], tile[y][2], tile[y][3]);
        }
#pragma GCC unroll 4
        for (int x = 0; x < 4; ++x) {
            transform_input_1d(tile[0][x], tile[1][x], tile[2][x], tile[3][x]);
#pragma GCC unroll 4
            for (int y = 0; y < 4; ++y) store(to + (y * 4 + x) * stride + c, tile[y][x], mask);
        }
    }
}

// Transforms the TILE_VALUES sums of one tile, which are `stride` values apart, to 2x2 output pixels and writes them. The first
// pixel is in row y and column x. The matrix A^T has the rows (1, 1, 1, 0), (0, 1, -1, -1).
template <class Microkernel>
void transform_output(const ConvolutionArgs& args, const float* products, Index stride, Index panel, Index y, Index x) {
    constexpr Index PANEL = Microkernel::PANEL;
    for (Index v = 0; v < PANEL && panel * PANEL + v < args.out_channels; v += 16) {
        Floats rows[2][4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const Floats a = _mm512_loadu_ps(products + i * stride + v), b = _mm512_loadu_ps(products + (4 + i) * stride + v);
            const Floats c = _mm512_loadu_ps(products + (8 + i) * stride + v);
            const Floats d = _mm512_loadu_ps(products + (12 + i) * stride + v);
            rows[0][i] = _mm512_add_ps(_mm512_add_ps(a, b), c);
            rows[1][i] = _mm512_sub_ps(_mm512_sub_ps(b, c), d);
        }
        for (Index down = 0; down < 2; ++down) {
            if (y + down < args.begin || y + down >= args.end) continue;
            const Floats* row = rows[down];
            const Index pixel = (y + down) * args.columns + x;
            store_pixel(args, pixel, panel * PANEL + v, _mm512_add_ps(_mm512_add_ps(row[0], row[1]), row[2]));
            if (x + 1 < args.columns)
                store_pixel(args, pixel + 1, panel * PANEL + v, _mm512_sub_ps(_mm512_sub_ps(row[1], row[2]), row[3]));
        }
    }
}

template <class Microkernel>
void convolve(const ConvolutionArgs& args, int threads) {
    using Dot = typename Microkernel::Bf16Dot;
    constexpr Index ROWS = Microkernel::ROWS, PANEL = Microkernel::PANEL;
    const Index depth = args.channels / 2, panels = (args.out_channels + PANEL - 1) / PANEL;
    const Index panel_groups = TILE_VALUES * depth * PANEL;
    Group4* weight = scratch<WeightTag, Group4>(panels * panel_groups);
    parallel_for(panels, threads, [&](Index panel) { pack_weight<Microkernel>(args, panel, weight + panel * panel_groups); });
    const Index across = (args.columns + 1) / 2, top = args.begin / 2, down = (args.end + 1) / 2 - top;  // in tiles
    const Index width = 2 * across + 2;                                                                  // frame width in pixels
    const Index max_tiles = std::max<Index>(1, TASK_BYTES / (TILE_VALUES * args.channels * 2));
    // A task computes `height` rows of tiles, or one row or a part of it, `length` tiles wide.
    const Index height = std::max<Index>(1, max_tiles / across);
    const Index length = std::min(across, std::max<Index>(ROWS, max_tiles / ROWS * ROWS));
    const Index strips = (down + height - 1) / height, parts = (across + length - 1) / length;
    // The tiles are transformed by this many tasks, which compute different panels.
    const Index panel_splits = std::min(panels, (TASKS_PER_THREAD * threads + strips * parts - 1) / (strips * parts));
    parallel_for(strips * parts * panel_splits, threads, [&](Index task) {
        const Index first = top + task / panel_splits / parts * height, last = std::min(first + height, top + down);
        const Index left = task / panel_splits % parts * length, columns = std::min(length, across - left);
        const Index tiles = (last - first) * columns;
        Bf16* frame = scratch<FrameTag, Bf16>((2 * height + 2) * width * args.channels);
        Bf16* transformed = scratch<TransformedTag, Bf16>(TILE_VALUES * height * length * args.channels);
        float* products = scratch<ProductTag, float>(TILE_VALUES * height * length * PANEL);
        Microkernel microkernel;
        fill_frame(args, 2 * first, 2 * last, width, frame);
        for (Index tile = 0; tile < tiles; ++tile) {
            const Index y = 2 * (tile / columns), x = 2 * (left + tile % columns);
            transform_input(frame + (y * width + x) * args.channels, width, args.channels, transformed + tile * args.channels,
                            tiles * args.channels);
        }
        for (Index panel = task % panel_splits; panel < panels; panel += panel_splits) {
            for (Index value = 0; value < TILE_VALUES; ++value) {
                const auto* rows = reinterpret_cast<const Group4*>(transformed) + value * tiles * depth;
                const Group4* columns_of = weight + panel * panel_groups + value * depth * PANEL;
                auto* to = reinterpret_cast<Group4*>(products) + value * tiles * PANEL;
                microkernel.template for_each_tile<Dot>(tiles, [&](auto tile, Index row) __attribute__((always_inline)) {
                    tile.clear();
                    tile.add(rows + row * depth, depth * Index(sizeof(Group4)), columns_of, depth);
                    tile.store(to + row * PANEL, PANEL);
                });
            }
            for (Index tile = 0; tile < tiles; ++tile)
                transform_output<Microkernel>(args, products + tile * PANEL, tiles * PANEL, panel, 2 * (first + tile / columns),
                                              2 * (left + tile % columns));
        }
    });
}

}  // namespace

void convolve_winograd(const ConvolutionArgs& args, int threads) {
    dispatch_isa(args.channels * 2, [&](auto isa) { convolve<typename decltype(isa)::Microkernel>(args, threads); });
}

}  // namespace allaprima
