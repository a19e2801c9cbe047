// What the library offers: plain buffers in, plain buffers out. It keeps some scratch memory for each thread; where there is
// none to be had, the process ends.
//
// Matrices are row-major; the numbers of a row lie together, and a row begins `..._stride` numbers after the one before.
// bfloat16 is given as its bits. Nothing is checked here: the Python side refuses what these can't do. What a function
// gives does not depend on the number of threads.
#pragma once

#include <cstdint>

extern "C" {
#pragma GCC visibility push(default)

// What happens to the sums of a linear before they are rounded, all in float32: plus the bias; GELU (tanh form); times
// the gate, a number a column; plus the residual.
struct Epilogue {
    const std::uint16_t* bias;      // (n), or null
    const std::uint16_t* gate;      // (n), or null
    const std::uint16_t* residual;  // (m, n), or null; may be the output itself
    std::int64_t residual_stride;
    std::int64_t gelu;  // 0 or 1
};

// A 3x3 convolution, padded with zeros, of some rows of a picture.
struct Convolve {
    const std::uint16_t* x;  // (rows, columns, channels), an even number of channels
    std::int64_t rows, columns, channels;
    const float *scale, *shift;   // (channels) each: SiLU(x * scale + shift) is what is convolved; or null
    const std::uint16_t* weight;  // (out_channels, channels, 3, 3)
    const std::uint16_t* bias;    // (out_channels), or null
    std::int64_t out_channels;
    std::int64_t doubles;           // 1: every pixel is doubled both ways before
    std::int64_t begin, end;        // the rows of x to be done
    const std::uint16_t* residual;  // as out, or null; may be the output itself
    std::uint16_t* out;             // (rows, columns, out_channels), or twice as many rows and columns
};

// Rises with every change of what is declared here.
int allaprima_version();

// 3: as 2, and AMX makes the products of rows of whole 64 bytes; then the process has asked the system for its tiles, for good.
// 2: AVX-512 VNNI and BF16, everything here. 1: AVX2, only what ends in _avx2. 0: nothing.
int allaprima_level();

// Use no more than a level, which this CPU has. Until it is called, AMX is not used.
void allaprima_use(int level);

// rows (m, k) times weight (n, k) transposed, int8; out: (m, n), int32, exact.
void allaprima_product_int8_avx2(const std::int8_t* rows, const std::int8_t* weight, std::int64_t m, std::int64_t n,
                                 std::int64_t k, std::int32_t* out, int threads);

// Each row of x as int8 with a scale of its own, of which it is about the product: scale = largest / 127; the product with the scale's
// inverse is rounded to nearest even. `sums` gets the sum of each row's numbers. x: (m, k); packed: (m, depth), zeros from k on.
void allaprima_quantize(const std::uint16_t* x, std::int64_t m, std::int64_t k, std::int64_t x_stride, std::int8_t* packed,
                        std::int64_t depth, float* scale, std::int32_t* sums, int threads);

// rows (m, k) times weight (n, k) transposed, int8 with scales, exact until the epilogue. out: (m, n), bfloat16. rows: (m, depth),
// zeros from k on; AMX wants a depth of whole 64.
void allaprima_linear_int8(const std::int8_t* rows, std::int64_t depth, const float* row_scale, const std::int32_t* row_sums,
                           const std::int8_t* weight, const float* weight_scale, std::int64_t m, std::int64_t n,
                           std::int64_t k, const Epilogue* epilogue, std::uint16_t* out, std::int64_t out_stride,
                           int threads);

// The same in bfloat16 with float32 sums. k must be even.
void allaprima_linear_bf16(const std::uint16_t* rows, std::int64_t rows_stride, const std::uint16_t* weight, std::int64_t m,
                           std::int64_t n, std::int64_t k, const Epilogue* epilogue, std::uint16_t* out,
                           std::int64_t out_stride, int threads);

// softmax(scale q k^T + bias) v of every head, head after head in a row. q, out: (queries, heads * width); k, v: (keys,
// heads * width); bias: (heads, queries, keys), or null. out may be q itself; width must be even.
void allaprima_attention(const std::uint16_t* q, std::int64_t q_stride, const std::uint16_t* k, std::int64_t k_stride,
                         const std::uint16_t* v, std::int64_t v_stride, const float* bias, float scale, std::int64_t heads,
                         std::int64_t queries, std::int64_t keys, std::int64_t width, std::uint16_t* out,
                         std::int64_t out_stride, int threads);

// Layer norm without affine, times 1 + scale, plus shift. x: (m, width); shift, scale: (width); out: (m, width), dense.
void allaprima_modulate(const std::uint16_t* x, std::int64_t m, std::int64_t width, std::int64_t x_stride,
                        const std::uint16_t* shift, const std::uint16_t* scale, float eps, std::uint16_t* out, int threads);

// Divided by the root of the mean square, times scale. x: (m, width); scale: (width); out: (m, width), dense.
void allaprima_rms_norm(const std::uint16_t* x, std::int64_t m, std::int64_t width, std::int64_t x_stride,
                        const std::uint16_t* scale, float eps, std::uint16_t* out, int threads);

// In place: the RMS norm of every head's part of a row, then each adjacent pair turned by its angle. x: (m, heads * width);
// scale: (width); cosines, sines: (m, width / 2).
void allaprima_rotate(std::uint16_t* x, std::int64_t m, std::int64_t heads, std::int64_t width, std::int64_t x_stride,
                      const std::uint16_t* scale, float eps, const float* cosines, const float* sines, int threads);

void allaprima_convolve(const Convolve* convolve, int threads);

// What a group norm does to each channel: scale and shift, (channels) each. x: (pixels, channels); weight, bias: (channels).
void allaprima_group_affine(const std::uint16_t* x, std::int64_t pixels, std::int64_t channels, std::int64_t groups,
                            const std::uint16_t* weight, const std::uint16_t* bias, float eps, float* scale, float* shift,
                            int threads);

#pragma GCC visibility pop
}
