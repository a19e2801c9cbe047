// Functions that the direct and the Winograd convolution share: the padded frame, rounding, and the epilogue.
#pragma once

#include <algorithm>

#include "kernels.h"
#include "microkernels.h"
#include "scratch.h"
#include "vectors.h"

namespace allaprima {

// Rounds to bfloat16, to nearest even. NaN remains NaN.
inline Bf16 round_to_bf16(float value) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return Bf16(bits >> 16 | 0x40);
    return Bf16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Fills a frame with the input rows `begin` - 1 to `end`, inclusive, after SiLU(x * scale + shift) if there is a scale. A frame row
// has `width` pixels: one zero pixel, the pixels of the image row, and zeros. Rows outside the image are zero.
inline void fill_frame(const ConvolutionArgs& args, Index begin, Index end, Index width, Bf16* frame) {
    const Index row_size = width * args.channels;
    for (Index y = begin - 1; y <= end; ++y, frame += row_size) {
        if (y < 0 || y >= args.rows) {
            std::fill_n(frame, row_size, Bf16(0));
            continue;
        }
        std::fill_n(frame, args.channels, Bf16(0));
        std::fill(frame + (args.columns + 1) * args.channels, frame + row_size, Bf16(0));
        const Bf16* from = args.x + y * args.columns * args.channels;
        Bf16* to = frame + args.channels;
        if (!args.scale) {
            std::copy_n(from, args.columns * args.channels, to);
            continue;
        }
        for (Index pixel = 0; pixel < args.columns; ++pixel, from += args.channels, to += args.channels)
            for (Index c = 0; c < args.channels; c += 16) {
                const __mmask16 mask = lanes(args.channels - c);
                const Floats scale = _mm512_maskz_loadu_ps(mask, args.scale + c);
                const Floats shift = _mm512_maskz_loadu_ps(mask, args.shift + c);
                const Floats normed = _mm512_fmadd_ps(load(from + c, mask), scale, shift);
                store(to + c, times_sigmoid(normed, normed), mask);
            }
    }
}

// Adds bias and residual to 16 output channels of one pixel, the first of which is `column`, and writes them.
inline void store_pixel(const ConvolutionArgs& args, Index pixel, Index column, Floats sums) {
    const __mmask16 mask = lanes(args.out_channels - column);
    if (args.bias) sums = _mm512_add_ps(sums, load(args.bias + column, mask));
    const Index at = pixel * args.out_channels + column;
    if (args.residual) sums = _mm512_add_ps(sums, load(args.residual + at, mask));
    store(args.out + at, sums, mask);
}

// Computes a convolution without upsampling by Winograd's F(2x2, 3x3).
void convolve_winograd(const ConvolutionArgs& args, int threads);

}  // namespace allaprima
