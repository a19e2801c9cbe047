// What the two ways of convolving share: the frame, the parcels of memory, the way out.
#pragma once

#include <algorithm>

#include "cores.h"
#include "kernels.h"
#include "scratch.h"
#include "vectors.h"

namespace allaprima {

// Rounded to the nearest even; what is not a number stays so.
inline Bf16 round_to_bf16(float value) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return Bf16(bits >> 16 | 0x40);
    return Bf16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Rows `begin` - 1 to `end` of the picture, activated, with zeros around it: one pixel at the left, and up to `width` pixels
// in all at the right.
inline void fill_frame(const Convolve& of, Index begin, Index end, Index width, Bf16* frame) {
    const Index row_size = width * of.channels;
    for (Index y = begin - 1; y <= end; ++y, frame += row_size) {
        if (y < 0 || y >= of.rows) {
            std::fill_n(frame, row_size, Bf16(0));
            continue;
        }
        std::fill_n(frame, of.channels, Bf16(0));
        std::fill(frame + (of.columns + 1) * of.channels, frame + row_size, Bf16(0));
        const Bf16* from = of.x + y * of.columns * of.channels;
        Bf16* to = frame + of.channels;
        if (!of.scale) {
            std::copy_n(from, of.columns * of.channels, to);
            continue;
        }
        for (Index pixel = 0; pixel < of.columns; ++pixel, from += of.channels, to += of.channels)
            for (Index c = 0; c < of.channels; c += 16) {
                const __mmask16 mask = lanes(of.channels - c);
                const Floats scale = _mm512_maskz_loadu_ps(mask, of.scale + c), shift = _mm512_maskz_loadu_ps(mask, of.shift + c);
                const Floats normed = _mm512_fmadd_ps(load(from + c, mask), scale, shift);
                store(to + c, times_sigmoid(normed, normed), mask);
            }
    }
}

// Sixteen channels of one pixel, to memory.
inline void finish(const Convolve& of, Index pixel, Index column, Floats sums) {
    const __mmask16 mask = lanes(of.out_channels - column);
    if (of.bias) sums = _mm512_add_ps(sums, load(of.bias + column, mask));
    const Index at = pixel * of.out_channels + column;
    if (of.residual) sums = _mm512_add_ps(sums, load(of.residual + at, mask));
    store(of.out + at, sums, mask);
}

// By F(2x2, 3x3) of Winograd's: `convolve` for a picture that is not doubled.
void convolve_winograd(const Convolve& of, int threads);

}  // namespace allaprima
