// 3x3 convolutions of pictures whose channels lie side by side, with the norm and SiLU before them and the residual behind.
//
// A picture's rows are brought into a frame of zeros first, normalised as they come; a tile of pixels is then the product of
// its neighbours, tap after tap, with a panel of the weight. A picture that is doubled before its convolution is not: of four
// neighbours in the larger picture at least two are the same pixel, so each of the four pixels that one becomes has four taps,
// whose weights are sums. That is 4/9 of the products.

#include "convolution.h"

#include <algorithm>
#include <vector>

namespace allaprima {
namespace {

constexpr Index PIXELS = 1024;             // of a task, about
constexpr Index PANEL_BYTES = 320 * 1024;  // of a panel, at a time
constexpr Index DEEP = 32;                 // channels from which on fewer products are worth more sums
constexpr Index TASKS = 4;                 // for each thread, at least

// A neighbour, and which of the nine weights of the kernel it is multiplied by the sum of.
struct Tap {
    int down, right, weights;
};

// Where one of a pixel's results lands, and its taps.
struct Corner {
    int down, right;
    std::vector<Tap> taps;
};

// The weights' rows (or columns) for each neighbour, from -1 on, of a pixel that stays one.
constexpr int ALONE[3] = {1, 2, 4};
// The same of the first and the second of two that a pixel becomes.
constexpr int DOUBLED[2][3] = {{1, 6, 0}, {0, 3, 4}};

std::vector<Corner> corners(bool doubles) {
    std::vector<Corner> all;
    for (int down = 0; down < (doubles ? 2 : 1); ++down)
        for (int right = 0; right < (doubles ? 2 : 1); ++right) {
            const int* rows = doubles ? DOUBLED[down] : ALONE;
            const int* columns = doubles ? DOUBLED[right] : ALONE;
            Corner corner{down, right, {}};
            for (int y = 0; y < 3; ++y)
                for (int x = 0; x < 3; ++x) {
                    int weights = 0;
                    for (int w = 0; w < 9; ++w)
                        if (rows[y] >> (w / 3) & 1 && columns[x] >> (w % 3) & 1) weights |= 1 << w;
                    if (weights) corner.taps.push_back({y - 1, x - 1, weights});
                }
            all.push_back(corner);
        }
    return all;
}

struct PackedUser {};
struct FrameUser {};
struct PartialUser {};

template <class Core>
struct Convolution {
    static constexpr Index PANEL = Core::PANEL;

    const Convolve& of;
    std::vector<Corner> all;

    Index depth() const { return of.channels / 2; }  // words of a tap
    Index panels() const { return (of.out_channels + PANEL - 1) / PANEL; }
    Index taps() const { return Index(all[0].taps.size()); }
    Index panel_words() const { return taps() * depth() * PANEL; }  // of one corner
};

// One panel of one corner: words of two channels, tap after tap, from a weight of (out_channels, channels, 3, 3).
template <class Core>
void pack_weight(const Convolution<Core>& convolution, const Corner& corner, Index panel, Word* to) {
    constexpr Index PANEL = Core::PANEL;
    const Convolve& of = convolution.of;
    for (const Tap& tap : corner.taps)
        for (Index d = 0; d < convolution.depth(); ++d)
            for (Index c = 0; c < PANEL; ++c, ++to) {
                const Index column = panel * PANEL + c;
                Word word = 0;
                for (Index half = 0; half < 2 && column < of.out_channels; ++half) {
                    const Bf16* nine = of.weight + (column * of.channels + 2 * d + half) * 9;
                    float sum = 0;
                    for (int w = 0; w < 9; ++w)
                        if (tap.weights >> w & 1) sum += widen(nine[w]);
                    word |= Word(round_to_bf16(sum)) << (16 * half);
                }
                *to = word;
            }
}

// One panel of one corner for the rows of a frame.
template <class Core>
void multiply(const Convolution<Core>& convolution, const Corner& corner, Index panel, Index begin, Index end,
              const Bf16* frame, const Word* packed, Word* partial) {
    constexpr Index PANEL = Core::PANEL;
    Core core;
    const Convolve& of = convolution.of;
    const Index depth = convolution.depth(), taps = convolution.taps(), scale = of.doubles ? 2 : 1;
    const Index most = std::max<Index>(1, PANEL_BYTES / Index(depth * PANEL * sizeof(Word)));
    const auto* words = reinterpret_cast<const Word*>(frame);
    for (Index first = 0; first < taps; first += most) {
        const Index last = std::min(first + most, taps);
        for (Index y = begin; y < end; ++y)
            core.template tiles<typename Core::Bf16Dot>(of.columns, [&](auto tile, Index x) __attribute__((always_inline)) {
                Word* sums = partial + ((y - begin) * of.columns + x) * PANEL;
                if (first == 0) tile.clear();
                else tile.load(sums, PANEL);
                for (Index t = first; t < last; ++t) {
                    const Tap& tap = corner.taps[std::size_t(t)];
                    const Index pixel = (y - begin + 1 + tap.down) * (of.columns + 2) + x + 1 + tap.right;
                    tile.add(words + pixel * depth, depth * Index(sizeof(Word)), packed + t * depth * PANEL, depth);
                }
                if (last < taps) return tile.store(sums, PANEL);
                Index pixel = (y * scale + corner.down) * of.columns * scale + x * scale + corner.right;
                tile.each_row([&](Index, const Floats* row) __attribute__((always_inline)) {
                    for (Index v = 0; v < Core::VECTORS && panel * PANEL + v * 16 < of.out_channels; ++v)
                        finish(of, pixel, panel * PANEL + v * 16, row[v]);
                    pixel += scale;
                });
            });
    }
}

template <class Core>
void convolve(const Convolve& of, int threads) {
    const Convolution<Core> convolution{of, corners(of.doubles != 0)};
    const Index count = Index(convolution.all.size()), panels = convolution.panels(), words = convolution.panel_words();
    Word* packed = scratch<PackedUser, Word>(panels * count * words);
    share(panels * count, threads, [&](Index i) {
        pack_weight(convolution, convolution.all[std::size_t(i % count)], i / count, packed + i * words);
    });
    const Index height = std::max<Index>(1, PIXELS / of.columns);
    const Index bands = (of.end - of.begin + height - 1) / height;
    const Index shares = std::min(panels, (TASKS * threads + bands - 1) / bands);  // of a band's panels
    share(bands * shares, threads, [&](Index task) {
        const Index begin = of.begin + task / shares * height, end = std::min(begin + height, of.end);
        Bf16* frame = scratch<FrameUser, Bf16>((height + 2) * (of.columns + 2) * of.channels);
        Word* partial = scratch<PartialUser, Word>(height * of.columns * Core::PANEL);
        fill_frame(of, begin, end, of.columns + 2, frame);
        for (Index panel = task % shares; panel < panels; panel += shares)
            for (Index corner = 0; corner < count; ++corner)
                multiply(convolution, convolution.all[std::size_t(corner)], panel, begin, end, frame,
                         packed + (panel * count + corner) * words, partial);
    });
}

}  // namespace
}  // namespace allaprima

using namespace allaprima;

extern "C" void allaprima_convolve(const Convolve* of, int threads) {
    if (of->begin >= of->end || of->columns == 0) return;
    if (!of->doubles && of->channels >= DEEP) return convolve_winograd(*of, threads);
    with_core(of->channels * 2, [&](auto which) { convolve<typename decltype(which)::Core>(*of, threads); });
}

namespace allaprima {
namespace {

constexpr Index CHUNK = 256;  // pixels that are summed in float32 before they go on in float64

// Sums and sums of squares of each channel of some pixels.
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
    share(chunks, threads, [&](Index chunk) {
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
            // Rounding may leave a little less than nothing of a variance; a NaN stays one.
            const float factor = float(1 / __builtin_sqrt((variance < 0 ? 0 : variance) + eps));
            scale[c] = widen(weight[c]) * factor;
            shift[c] = widen(bias[c]) - float(mean) * scale[c];
        }
    }
}
