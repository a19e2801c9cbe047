// The library's C interface. The functions read and write plain buffers.
//
// Matrices are row-major: the values of a row are contiguous, and consecutive rows are `..._stride` values apart; without a stride
// argument they are dense. bfloat16 is passed as its 16 bits. The functions do not check their arguments; the Python code passes
// only supported ones. Results do not depend on the number of threads. Each thread keeps its scratch memory for the next call; the
// process aborts if it cannot be allocated.
#pragma once

#include <cstdint>

extern "C" {
#pragma GCC visibility push(default)

// Operations on a linear's float32 sums before they are rounded to bfloat16. The order is: add the bias, apply GELU (tanh form),
// multiply by the gate, add the residual.
struct Epilogue {
    const std::uint16_t* bias;      // (n), or null
    const std::uint16_t* gate;      // (n), or null
    const std::uint16_t* residual;  // (m, n), or null; may be the output
    std::int64_t residual_stride;
    std::int64_t gelu;  // 0 or 1
};

// A 3x3 convolution with zero padding, for a range of rows of one image.
struct ConvolutionArgs {
    const std::uint16_t* x;  // (rows, columns, channels); channels is even
    std::int64_t rows, columns, channels;
    const float *scale, *shift;   // (channels) each: the input of the convolution is SiLU(x * scale + shift); or null: it is x
    const std::uint16_t* weight;  // (out_channels, channels, 3, 3)
    const std::uint16_t* bias;    // (out_channels), or null
    std::int64_t out_channels;
    std::int64_t upsample;          // 1: nearest-neighbour upsampling by 2 before the convolution
    std::int64_t begin, end;        // the range of input rows
    const std::uint16_t* residual;  // the shape of out, or null; may be out
    std::uint16_t* out;             // (rows, columns, out_channels), or (2 rows, 2 columns, out_channels) if upsampled
};

// Returns the version of this interface, which changes with every change of it.
int allaprima_version();

// Returns the highest level that this CPU supports. 0: no function. 1: AVX2, only the functions whose names end in _avx2.
// 2: AVX-512 with VNNI and BF16, all functions. 3: like 2, with AMX for products whose rows are multiples of 64 bytes.
// The first call requests permission to use AMX tiles from Linux, which grants it for the life of the process.
int allaprima_level();

// Sets the level in use, which must not exceed allaprima_level(). Before the first call, AMX is not used.
void allaprima_set_level(int level);

// Computes rows (m, k) times weight (n, k) transposed, int8, exactly. out: (m, n), int32.
void allaprima_product_int8_avx2(const std::int8_t* rows, const std::int8_t* weight, std::int64_t m, std::int64_t n,
                                 std::int64_t k, std::int32_t* out, int threads);

// Quantizes each row to int8, symmetrically: scale = max |x| / 127, packed = x * (1 / scale) rounded to nearest even. x: (m, k);
// packed: (m, depth), zero from column k on; scale: (m); sums: (m), the sum of each packed row.
void allaprima_quantize(const std::uint16_t* x, std::int64_t m, std::int64_t k, std::int64_t x_stride, std::int8_t* packed,
                        std::int64_t depth, float* scale, std::int32_t* sums, int threads);

// Computes rows (m, k) times weight (n, k) transposed, int8. The sums are exact; the scales and the epilogue are applied in
// float32. rows: (m, depth), zero from column k on; row_scale, row_sums: (m), as from allaprima_quantize; weight_scale: (n); out:
// (m, n), bfloat16. AMX is used if depth is a multiple of 64.
void allaprima_linear_int8(const std::int8_t* rows, std::int64_t depth, const float* row_scale, const std::int32_t* row_sums,
                           const std::int8_t* weight, const float* weight_scale, std::int64_t m, std::int64_t n,
                           std::int64_t k, const Epilogue* epilogue, std::uint16_t* out, std::int64_t out_stride,
                           int threads);

// Computes rows (m, k) times weight (n, k) transposed, bfloat16, with float32 sums. k must be even. out: (m, n), bfloat16.
void allaprima_linear_bf16(const std::uint16_t* rows, std::int64_t rows_stride, const std::uint16_t* weight, std::int64_t m,
                           std::int64_t n, std::int64_t k, const Epilogue* epilogue, std::uint16_t* out,
                           std::int64_t out_stride, int threads);

// Computes softmax(scale q k^T + bias) v for every head. A row contains the values of all heads. q, out: (queries, heads * width);
// k, v: (keys, heads * width); bias: (heads, queries, keys), or null. out may be q; width must be even.
void allaprima_attention(const std::uint16_t* q, std::int64_t q_stride, const std::uint16_t* k, std::int64_t k_stride,
                         const std::uint16_t* v, std::int64_t v_stride, const float* bias, float scale, std::int64_t heads,
                         std::int64_t queries, std::int64_t keys, std::int64_t width, std::uint16_t* out,
                         std::int64_t out_stride, int threads);

// Computes layer_norm(x) * (1 + scale) + shift for each row. x: (m, width); shift, scale: (width); out: (m, width), dense.
void allaprima_modulate(const std::uint16_t* x, std::int64_t m, std::int64_t width, std::int64_t x_stride,
                        const std::uint16_t* shift, const std::uint16_t* scale, float eps, std::uint16_t* out, int threads);

// Computes x / sqrt(mean(x^2) + eps) * scale for each row (RMS norm). x: (m, width); scale: (width); out: (m, width), dense.
void allaprima_rms_norm(const std::uint16_t* x, std::int64_t m, std::int64_t width, std::int64_t x_stride,
                        const std::uint16_t* scale, float eps, std::uint16_t* out, int threads);

// Applies an RMS norm to each head of a row, then rotates its adjacent pairs of values (RoPE), in place. x: (m, heads * width);
// scale: (width); cosines, sines of the angles: (m, width / 2).
void allaprima_qk_norm_rope(std::uint16_t* x, std::int64_t m, std::int64_t heads, std::int64_t width, std::int64_t x_stride,
                      const std::uint16_t* scale, float eps, const float* cosines, const float* sines, int threads);

// Computes a 3x3 convolution. For 32 channels and more without upsampling, Winograd's algorithm is used, whose rounding differs.
void allaprima_convolve(const ConvolutionArgs* args, int threads);

// Computes a group norm of one image as an affine map x * scale + shift per channel. x: (pixels, channels); weight, bias, scale,
// shift: (channels).
void allaprima_group_affine(const std::uint16_t* x, std::int64_t pixels, std::int64_t channels, std::int64_t groups,
                            const std::uint16_t* weight, const std::uint16_t* bias, float eps, float* scale, float* shift,
                            int threads);

#pragma GCC visibility pop
}
