// Direct 3x3 convolutions of channels-last images, fused with the group norm and SiLU before them and the residual after them.
//
// Input rows are normalised and copied into a zero-padded frame. An output tile is the sum, over the taps of the kernel, of the
// product of shifted frame rows and a weight panel. Nearest-neighbour upsampling by 2 is folded into the weights: an output pixel
// of one of the four phases (row and column parity) depends on only four distinct input pixels, so the phase's kernel has four
// taps, whose weights are sums of the kernel. This needs 4/9 of the multiplications.

#include "convolution.h"

#include <algorithm>
#include <vector>

namespace allaprima {
namespace {

constexpr Index PIXELS_PER_TASK = 1024;      // approximate
constexpr Index PANEL_BYTES = 320 * 1024;    // most bytes of a weight panel that one pass over the rows uses
constexpr Index WINOGRAD_MIN_CHANNELS = 32;  // with fewer, Winograd's transforms take longer than the multiplications they save
constexpr Index TASKS_PER_THREAD = 4;        // minimum

// The offset of an input pixel from the output pixel, and a bit mask of the kernel weights whose sum is the tap's weight.
struct Tap {
    int down, right, weights;
};

// One of the output pixels of an input pixel: its offset in the output (0 without upsampling), and the taps of its kernel.
struct Phase {
    int down, right;
    std::vector<Tap> taps;
};

// Without upsampling, for the input offsets -1, 0 and 1: a bit mask of the kernel rows (or columns) that read the input.
constexpr int TAPS_PLAIN[3] = {1, 2, 4};
// The same with upsampling, for the first and the second output row (or column) of an input row (or column).
constexpr int TAPS_UPSAMPLED[2][3] = {{1, 6, 0}, {0, 3, 4}};

std::vector<Phase> phases(bool upsample) {
    std::vector<Phase> all;
    for (int down = 0; down < (upsample ? 2 : 1); ++down)
        for (int right = 0; right < (upsample ? 2 : 1); ++right) {
            const int* rows = upsample ? TAPS_UPSAMPLED[down] : TAPS_PLAIN;
            const int* columns = upsample ? TAPS_UPSAMPLED[right] : TAPS_PLAIN;
            Phase phase{down, right, {}};
            for (int y = 0; y < 3; ++y)
                for (int x = 0; x < 3; ++x) {
                    int weights = 0;
                    for (int w = 0; w < 9; ++w)
                        if (rows[y] >> (w / 3) & 1 && columns[x] >> (w % 3) & 1) weights |= 1 << w;
                    if (weights) phase.taps.push_back({y - 1, x - 1, weights});
                }
            all.push_back(phase);
        }
    return all;
}

struct PackedTag {};
struct FrameTag {};
struct PartialTag {};

template <class Microkernel>
struct Convolution {
    static constexpr Index PANEL = Microkernel::PANEL;

    const ConvolutionArgs& args;
    std::vector<Phase> all;

    Index depth() const { return args.channels / 2; }  // 4-byte groups per tap
    Index panels() const { return (args.out_channels + PANEL - 1) / PANEL; }
    Index taps() const { return Index(all[0].taps.size()); }
    Index panel_groups() const { return taps() * depth() * PANEL; }  // per phase
};

// Packs one panel of one phase, tap by tap, from a weight (out_channels, channels, 3, 3). A 4-byte group has two channels.
template <class Microkernel>
void pack_weight(const Convolution<Microkernel>& convolution, const Phase& phase, Index panel, Group4* to) {
    constexpr Index PANEL = Microkernel::PANEL;
    const ConvolutionArgs& args = convolution.args;
    for (const Tap& tap : phase.taps)
        for (Index d = 0; d < convolution.depth(); ++d)
            for (Index c = 0; c < PANEL; ++c, ++to) {
                const Index column = panel * PANEL + c;
                Group4 group = 0;
                for (Index half = 0; half < 2 && column < args.out_channels; ++half) {
                    const Bf16* kernel = args.weight + (column * args.channels + 2 * d + half) * 9;
                    float sum = 0;
                    for (int w = 0; w < 9; ++w)
                        if (tap.weights >> w & 1) sum += widen(kernel[w]);
                    group |= Group4(round_to_bf16(sum)) << (16 * half);
                }
                *to = group;
            }
}

// Computes the output channels of one panel at the pixels of one phase for the input rows [begin, end), which `frame` contains.
template <class Microkernel>
void multiply(const Convolution<Microkernel>& convolution, const Phase& phase, Index panel, Index begin, Index end,
              const Bf16* frame, const Group4* packed, Group4* partial) {
    using Dot = typename Microkernel::Bf16Dot;
    constexpr Index PANEL = Microkernel::PANEL;
    Microkernel microkernel;
    const ConvolutionArgs& args = convolution.args;
    const Index depth = convolution.depth(), taps = convolution.taps(), scale = args.upsample ? 2 : 1;
    const Index taps_at_a_time = std::max<Index>(1, PANEL_BYTES / Index(depth * PANEL * sizeof(Group4)));
    const auto* groups = reinterpret_cast<const Group4*>(frame);
    for (Index first = 0; first < taps; first += taps_at_a_time) {
        const Index last = std::min(first + taps_at_a_time, taps);
        for (Index y = begin; y < end; ++y)
            microkernel.template for_each_tile<Dot>(args.columns, [&](auto tile, Index x) __attribute__((always_inline)) {
                Group4* sums = partial + ((y - begin) * args.columns + x) * PANEL;
                if (first == 0) tile.clear();
                else tile.load(sums, PANEL);
                for (Index t = first; t < last; ++t) {
                    const Tap& tap = phase.taps[std::size_t(t)];
                    const Index pixel = (y - begin + 1 + tap.down) * (args.columns + 2) + x + 1 + tap.right;
                    tile.add(groups + pixel * depth, depth * Index(sizeof(Group4)), packed + t * depth * PANEL, depth);
                }
                if (last < taps) return tile.store(sums, PANEL);
                Index pixel = (y * scale + phase.down) * args.columns * scale + x * scale + phase.right;
                tile.for_each_row([&](Index, const Floats* row) __attribute__((always_inline)) {
                    for (Index v = 0; v < Microkernel::VECTORS && panel * PANEL + v * 16 < args.out_channels; ++v)
                        store_pixel(args, pixel, panel * PANEL + v * 16, row[v]);
                    pixel += scale;
                });
            });
    }
}

template <class Microkernel>
void convolve(const ConvolutionArgs& args, int threads) {
    const Convolution<Microkernel> convolution{args, phases(args.upsample != 0)};
    const Index count = Index(convolution.all.size()), panels = convolution.panels(), groups = convolution.panel_groups();
    Group4* packed = scratch<PackedTag, Group4>(panels * count * groups);
    parallel_for(panels * count, threads, [&](Index i) {
        pack_weight(convolution, convolution.all[std::size_t(i % count)], i / count, packed + i * groups);
    });
    const Index height = std::max<Index>(1, PIXELS_PER_TASK / args.columns);
    const Index strips = (args.end - args.begin + height - 1) / height;
    // A strip of rows is split into this many tasks, which compute different panels.
    const Index panel_splits = std::min(panels, (TASKS_PER_THREAD * threads + strips - 1) / strips);
    parallel_for(strips * panel_splits, threads, [&](Index task) {
        const Index begin = args.begin + task / panel_splits * height, end = std::min(begin + height, args.end);
        Bf16* frame = scratch<FrameTag, Bf16>((height + 2) * (args.columns + 2) * args.channels);
        Group4* partial = scratch<PartialTag, Group4>(height * args.columns * Microkernel::PANEL);
        fill_frame(args, begin, end, args.columns + 2, frame);
        for (Index panel = task % panel_splits; panel < panels; panel += panel_splits)
            for (Index phase = 0; phase < count; ++phase)
                multiply(convolution, convolution.all[std::size_t(phase)], panel, begin, end, frame,
                         packed + (panel * count + phase) * groups, partial);
    });
}

}  // namespace
}  // namespace allaprima

using namespace allaprima;

extern "C" void allaprima_convolve(const ConvolutionArgs* args, int threads) {
    if (args->begin >= args->end || args->columns == 0) return;
    if (!args->upsample && args->channels >= WINOGRAD_MIN_CHANNELS) return convolve_winograd(*args, threads);
    dispatch_isa(args->channels * 2, [&](auto isa) { convolve<typename decltype(isa)::Microkernel>(*args, threads); });
}

namespace allaprima {
namespace {

constexpr Index CHUNK = 256;  // number of pixels that are summed in float32; the sums of chunks are added in float64

// Computes the sum and the sum of squares of each channel over `pixels` pixels.
void sum_pixels(const Bf16* x, Index pixels, Index channels, float* sums, float* squares) {
    for (Index c = 0; c < channels; c += 16) {
        const __mmask16 mask = lanes(channels - c);
        Floats sum = _mm512_setzero_ps(), square = _mm512_setzero_ps();
        for (Index pixel = 0; pixel < pixels; ++pixel) {
            const Floats values = load(x + pixel * channels + c, mask);
            sum = _mm512_add_ps(sum, values);
            square = _mm512_fmadd_ps(values, values, square);
        }
        _mm512_mask_storeu_ps(sums + c, mask, sum);
        _mm512_mask_storeu_ps(squares + c, mask, square);
    }
}

}  // namespace
}  // namespace allaprima

extern "C" void allaprima_group_affine(const Bf16* x, Index pixels, Index channels, Index groups, const Bf16* weight,
                                       const Bf16* bias, float eps, float* scale, float* shift, int threads) {
    const Index chunks = (pixels + CHUNK - 1) / CHUNK, size = channels / groups;
    std::vector<float> sums(std::size_t(chunks * 2 * channels));
    parallel_for(chunks, threads, [&](Index chunk) {
        float* to = sums.data() + chunk * 2 * channels;
        const Index first = chunk * CHUNK;
        sum_pixels(x + first * channels, std::min(CHUNK, pixels - first), channels, to, to + channels);
    });
    for (Index group = 0; group < groups; ++group) {
        double sum = 0, square = 0;
        for (Index chunk = 0; chunk < chunks; ++chunk)
            for (Index c = group * size; c < (group + 1) * size; ++c) {
                sum += sums[std::size_t(chunk * 2 * channels + c)];
                square += sums[std::size_t((chunk * 2 + 1) * channels + c)];
            }
        const double mean = sum / double(pixels * size), variance = square / double(pixels * size) - mean * mean;
        for (Index c = group * size; c < (group + 1) * size; ++c) {
            // Rounding can make the variance slightly negative. The comparison does not replace NaN.
            const float factor = float(1 / __builtin_sqrt((variance < 0 ? 0 : variance) + eps));
            scale[c] = widen(weight[c]) * factor;
            shift[c] = widen(bias[c]) - float(mean) * scale[c];
        }
    }
}
