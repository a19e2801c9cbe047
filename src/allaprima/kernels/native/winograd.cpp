// 3x3 convolutions with 16 products for four pixels instead of 36: F(2x2, 3x3).
//
// A block of 4x4 pixels and the nine weights are brought into a form where each of 16 numbers meets but one other; what
// channels sum to is brought back to 2x2 pixels. Blocks begin at even rows and columns of the whole picture, whatever rows
// are asked. Source: Winograd 1980; Lavin and Gray 2015 (1509.09308), section 4.1.

#include "convolution.h"

#include <algorithm>

namespace allaprima {
namespace {

constexpr int FORMS = 16;                   // numbers of a block's form
constexpr Index FORM_BYTES = 768 * 1024;    // of the blocks of a task
constexpr Index TASKS = 4;                  // for each thread, at least

struct WeightUser {};
struct FrameUser {};
struct FormUser {};
struct ProductUser {};

// (1, 0, 0), (1/2, 1/2, 1/2), (1/2, -1/2, 1/2), (0, 0, 1): three weights as four.
inline void spread(const float* three, Index stride, float* four, Index out_stride) {
    const float a = three[0], b = three[stride], c = three[2 * stride];
    four[0] = a;
    four[out_stride] = (a + c + b) / 2;
    four[2 * out_stride] = (a + c - b) / 2;
    four[3 * out_stride] = c;
}

// A panel of the weight (out_channels, channels, 3, 3): form after form, words of two channels.
template <class Core>
void pack_weight(const Convolve& of, Index panel, Word* to) {
    constexpr Index PANEL = Core::PANEL;
    const Index depth = of.channels / 2;
    for (Index c = 0; c < PANEL; ++c)
        for (Index d = 0; d < depth; ++d) {
            Word words[FORMS] = {};
            for (Index half = 0; half < 2 && panel * PANEL + c < of.out_channels; ++half) {
                const Bf16* nine = of.weight + ((panel * PANEL + c) * of.channels + 2 * d + half) * 9;
                float wide[9], rows[12], forms[FORMS];
                for (int i = 0; i < 9; ++i) wide[i] = widen(nine[i]);
                for (int i = 0; i < 3; ++i) spread(wide + i, 3, rows + i, 3);
                for (int i = 0; i < 4; ++i) spread(rows + 3 * i, 1, forms + 4 * i, 1);
                for (int i = 0; i < FORMS; ++i) words[i] |= Word(round_to_bf16(forms[i])) << (16 * half);
            }
            for (int i = 0; i < FORMS; ++i) to[(i * depth + d) * PANEL + c] = words[i];
        }
}

// Four neighbours as the sums and differences that two results need.
inline void combine(Floats& a, Floats& b, Floats& c, Floats& d) {
    const Floats first = _mm512_sub_ps(a, c), sum = _mm512_add_ps(b, c), difference = _mm512_sub_ps(c, b);
    d = _mm512_sub_ps(b, d);
    a = first;
    b = sum;
    c = difference;
}

// The form of one block: 4x4 pixels of a frame of `width` pixels, to FORMS places `stride` numbers apart.
void transform(const Bf16* pixels, Index width, Index channels, Bf16* to, Index stride) {
    for (Index c = 0; c < channels; c += 16) {
        const __mmask16 mask = lanes(channels - c);
        Floats block[4][4];
#pragma GCC unroll 4
        for (int y = 0; y < 4; ++y) {
#pragma GCC unroll 4
            for (int x = 0; x < 4; ++x) block[y][x] = load(pixels + (y * width + x) * channels + c, mask);
            combine(block[y][0], block[y][1], block[y][2], block[y][3]);
        }
#pragma GCC unroll 4
        for (int x = 0; x < 4; ++x) {
            combine(block[0][x], block[1][x], block[2][x], block[3][x]);
#pragma GCC unroll 4
            for (int y = 0; y < 4; ++y) store(to + (y * 4 + x) * stride + c, block[y][x], mask);
        }
    }
}

// One block's 2x2 pixels of a panel, from its products, FORMS of them `stride` numbers apart. y, x: of the first pixel.
template <class Core>
void transform_back(const Convolve& of, const float* products, Index stride, Index panel, Index y, Index x) {
    constexpr Index PANEL = Core::PANEL;
    for (Index v = 0; v < PANEL && panel * PANEL + v < of.out_channels; v += 16) {
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
            if (y + down < of.begin || y + down >= of.end) continue;
            const Floats* row = rows[down];
            const Index pixel = (y + down) * of.columns + x;
            finish(of, pixel, panel * PANEL + v, _mm512_add_ps(_mm512_add_ps(row[0], row[1]), row[2]));
            if (x + 1 < of.columns)
                finish(of, pixel + 1, panel * PANEL + v, _mm512_sub_ps(_mm512_sub_ps(row[1], row[2]), row[3]));
        }
    }
}

template <class Core>
void convolve(const Convolve& of, int threads) {
    constexpr Index ROWS = Core::ROWS, PANEL = Core::PANEL;
    const Index depth = of.channels / 2, panels = (of.out_channels + PANEL - 1) / PANEL;
    const Index panel_words = FORMS * depth * PANEL;
    Word* weight = scratch<WeightUser, Word>(panels * panel_words);
    share(panels, threads, [&](Index panel) { pack_weight<Core>(of, panel, weight + panel * panel_words); });
    const Index across = (of.columns + 1) / 2, top = of.begin / 2, down = (of.end + 1) / 2 - top;  // blocks
    const Index width = 2 * across + 2;                                                            // of a frame's rows
    const Index most = std::max<Index>(1, FORM_BYTES / (FORMS * of.channels * 2));
    // A task is some rows of blocks, or a part of one row.
    const Index height = std::max<Index>(1, most / across), length = std::min(across, std::max<Index>(ROWS, most / ROWS * ROWS));
    const Index bands = (down + height - 1) / height, parts = (across + length - 1) / length;
    const Index shares = std::min(panels, (TASKS * threads + bands * parts - 1) / (bands * parts));  // of the panels
    share(bands * parts * shares, threads, [&](Index task) {
        const Index first = top + task / shares / parts * height, last = std::min(first + height, top + down);
        const Index left = task / shares % parts * length, columns = std::min(length, across - left);
        const Index blocks = (last - first) * columns;
        Bf16* frame = scratch<FrameUser, Bf16>((2 * height + 2) * width * of.channels);
        Bf16* forms = scratch<FormUser, Bf16>(FORMS * height * length * of.channels);
        float* products = scratch<ProductUser, float>(FORMS * height * length * PANEL);
        Core core;
        fill_frame(of, 2 * first, 2 * last, width, frame);
        for (Index block = 0; block < blocks; ++block) {
            const Index y = 2 * (block / columns), x = 2 * (left + block % columns);
            transform(frame + (y * width + x) * of.channels, width, of.channels, forms + block * of.channels,
                      blocks * of.channels);
        }
        for (Index panel = task % shares; panel < panels; panel += shares) {
            for (Index form = 0; form < FORMS; ++form) {
                const auto* rows = reinterpret_cast<const Word*>(forms) + form * blocks * depth;
                const Word* columns_of = weight + panel * panel_words + form * depth * PANEL;
                auto* to = reinterpret_cast<Word*>(products) + form * blocks * PANEL;
                core.template tiles<typename Core::Bf16Dot>(blocks, [&](auto tile, Index row) __attribute__((always_inline)) {
                    tile.clear();
                    tile.add(rows + row * depth, depth * Index(sizeof(Word)), columns_of, depth);
                    tile.store(to + row * PANEL, PANEL);
                });
            }
            for (Index block = 0; block < blocks; ++block)
                transform_back<Core>(of, products + block * PANEL, blocks * PANEL, panel, 2 * (first + block / columns),
                                     2 * (left + block % columns));
        }
    });
}

}  // namespace

void convolve_winograd(const Convolve& of, int threads) {
    with_core(of.channels * 2, [&](auto which) { convolve<typename decltype(which)::Core>(of, threads); });
}

}  // namespace allaprima
