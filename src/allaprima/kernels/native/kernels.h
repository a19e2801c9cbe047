// The library's C interface: plain buffers in, plain buffers out. Scratch memory is kept per thread; the process aborts if it
// cannot be allocated.
//
// Matrices are row-major: the values of a row are contiguous, and consecutive rows are `..._stride` values apart. bfloat16 is passed
// as its 16 bits. Arguments are not checked here; the Python side only passes supported ones. Results do not depend on the number of
// threads.
#pragma once

#include <cstdint>

extern "C" {
#pragma GCC visibility push(default)

// Applied to a linear's float32 sums, in this order, before they are rounded: add the bias; GELU (tanh form); multiply by the gate;
// add the residual.
struct Epilogue {
    const std::uint16_t* bias;      // (n), or null
    const std::uint16_t* gate;      // (n), or null
    const std::uint16_t* residual;  // (m, n), or null; may be out itself
    std::int64_t residual_stride;
    std::int64_t gelu;  // 0 or 1
};

// A 3x3 convolution with zero padding, for a range of rows of one image.
struct ConvolutionArgs {
    const std::uint16_t* x;  // (rows, columns, channels); channels is even
    std::int64_t rows, columns, channels;
    const float *scale, *shift;   // (channels) each, the input becomes SiLU(x * scale + shift); or null
    const std::uint16_t* weight;  // (out_channels, channels, 3, 3)
    const std::uint16_t* bias;    // (out_channels), or null
    std::int64_t out_channels;
    std::int64_t upsample;          // 1: nearest-neighbour upsampling by 2 before the convolution
    std::int64_t begin, end;        // the range of input rows
    const std::uint16_t* residual;  // same shape as out, or null; may be out itself
    std::uint16_t* out;             // (rows, columns, out_channels); twice the rows and columns if upsampled
};

// The version of this interface; incremented with every change to it.
int allaprima_version();

// The highest level that this CPU supports. 0: none. 1: AVX2, only the functions ending in _avx2. 2: AVX-512 with VNNI and BF16, all
// functions. 3: as 2, with AMX for products whose rows are multiples of 64 bytes. The call requests permission for AMX tiles from
// Linux, which stays granted for the life of the process.
int allaprima_level();

// Sets the level in use, at most allaprima_level(). AMX is not used until this is called.
void allaprima_set_level(int level);

// rows (m, k) times weight (n, k) transposed, int8. out: (m, n), int32, exact.
void allaprima_product_int8_avx2(const std::int8_t* rows, const std::int8_t* weight, std::int64_t m, std::int64_t n,
                                 std::int64_t k, std::int32_t* out, int threads);

// Symmetric int8 quantization per row: scale = max |x| / 127, packed = x * (1 / scale) rounded to nearest even. `sums` receives the
// sum of each packed row. x: (m, k); packed: (m, depth), zero from column k on.
void allaprima_quantize(const std::uint16_t* x, std::int64_t m, std::int64_t k, std::int64_t x_stride, std::int8_t* packed,
                        std::int64_t depth, float* scale, std::int32_t* sums, int threads);

// rows (m, k) times weight (n, k) transposed, int8, exact up to the scales and the epilogue. out: (m, n), bfloat16. rows: (m, depth),
// zero from column k on; AMX is used if depth is a multiple of 64.
void allaprima_linear_int8(const std::int8_t* rows, std::int64_t depth, const float* row_scale, const std::int32_t* row_sums,
                           const std::int8_t* weight, const float* weight_scale, std::int64_t m, std::int64_t n,
                           std::int64_t k, const Epilogue* epilogue, std::uint16_t* out, std::int64_t out_stride,
                           int threads);

// The same in bfloat16 with float32 sums. k must be even.
void allaprima_linear_bf16(const std::uint16_t* rows, std::int64_t rows_stride, const std::uint16_t* weight, std::int64_t m,
                           std::int64_t n, std::int64_t k, const Epilogue* epilogue, std::uint16_t* out,
                           std::int64_t out_stride, int threads);

// softmax(scale q k^T + bias) v for every head; a row holds all heads. q, out: (queries, heads * width); k, v: (keys,
// heads * width); bias: (heads, queries, keys), or null. out may be q itself; width must be even.
void allaprima_attention(const std::uint16_t* q, std::int64_t q_stride, const std::uint16_t* k, std::int64_t k_stride,
                         const std::uint16_t* v, std::int64_t v_stride, const float* bias, float scale, std::int64_t heads,
                         std::int64_t queries, std::int64_t keys, std::int64_t width, std::uint16_t* out,
                         std::int64_t out_stride, int threads);

// Layer norm without affine, times 1 + scale, plus shift. x: (m, width); shift, scale: (width); out: (m, width), dense.
void allaprima_modulate(const std::uint16_t* x, std::int64_t m, std::int64_t width, std::int64_t x_stride,
                        const std::uint16_t* shift, const std::uint16_t* scale, float eps, std::uint16_t* out, int threads);

// RMS norm: x / sqrt(mean(x^2) + eps) * scale. x: (m, width); scale: (width); out: (m, width), dense.
void allaprima_rms_norm(const std::uint16_t* x, std::int64_t m, std::int64_t width, std::int64_t x_stride,
                        const std::uint16_t* scale, float eps, std::uint16_t* out, int threads);

// In place: RMS norm of each head of a row, then rotary positions on adjacent pairs (RoPE). x: (m, heads * width);
// scale: (width); cosines, sines: (m, width / 2).
void allaprima_qk_norm_rope(std::uint16_t* x, std::int64_t m, std::int64_t heads, std::int64_t width, std::int64_t x_stride,
                      const std::uint16_t* scale, float eps, const float* cosines, const float* sines, int threads);

void allaprima_convolve(const ConvolutionArgs* convolve, int threads);

// A group norm as an affine map per channel: scale and shift, (channels) each. x: (pixels, channels); weight, bias: (channels).
void allaprima_group_affine(const std::uint16_t* x, std::int64_t pixels, std::int64_t channels, std::int64_t groups,
                            const std::uint16_t* weight, const std::uint16_t* bias, float eps, float* scale, float* shift,
                            int threads);

#pragma GCC visibility pop
}
