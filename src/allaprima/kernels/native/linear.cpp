// Linears: multiplies rows of activations (m, k) by a weight (n, k) transposed, some panels of output columns at a time.
//
// Weights have torch's layout, and every call packs them into panels. Packing takes little time compared with the products: with
// AVX-512, 1/32 of the time for 128 rows and 1/320 for 1280. The panels of one pass fit in the L2 cache.

#include <algorithm>

#include "kernels.h"
#include "microkernels.h"
#include "scratch.h"
#include "vectors.h"

namespace allaprima {
namespace {

constexpr Index DEPTH_BLOCK = 768;        // depth of a pass, in 4-byte groups
constexpr Index MIN_ROWS_PER_TASK = 192;  // applies if the rows are split, since there are too few panels for all threads
constexpr Index TASKS_PER_THREAD = 4;     // target if the rows are split

struct PanelTag {};
struct PartialTag {};

struct LinearArgs {
    const std::uint8_t* rows;
    Index rows_stride;  // bytes
    const std::uint8_t* weight;
    Index bytes;  // bytes per row of the weight
    Index m, n;
    const Epilogue& epilogue;
    Bf16* out;
    Index out_stride;
};

// Applies the epilogue to 16 columns of one row.
__attribute__((always_inline)) inline Floats apply_epilogue(const LinearArgs& linear, Index row, Index column, Floats sums,
                                                            __mmask16 mask) {
    const Epilogue& epilogue = linear.epilogue;
    if (epilogue.bias) sums = _mm512_add_ps(sums, load(epilogue.bias + column, mask));
    if (epilogue.gelu) sums = gelu(sums);
    if (epilogue.gate) sums = _mm512_mul_ps(sums, load(epilogue.gate + column, mask));
    if (epilogue.residual) sums = _mm512_add_ps(sums, load(epilogue.residual + row * epilogue.residual_stride + column, mask));
    return sums;
}

// Scales one row of a finished tile, applies the epilogue and writes it to `out`.
template <int VECTORS, class Sums, class Scale>
__attribute__((always_inline)) inline void store_row(const LinearArgs& linear, Index row, Index column, const Sums* sums,
                                                     const Scale& scale) {
    const auto finish = [&](Index v, __mmask16 mask) __attribute__((always_inline)) {
        const Index at = column + v * 16;
        return apply_epilogue(linear, row, at, scale(row, at, sums[v], mask), mask);
    };
    Bf16* to = linear.out + row * linear.out_stride + column;
    if (column + VECTORS * 16 <= linear.n) {
        for (Index v = 0; v < VECTORS; v += 2) store(to + v * 16, finish(v, 0xffff), finish(v + 1, 0xffff));
        return;
    }
    for (Index v = 0; v < VECTORS && column + v * 16 < linear.n; ++v) {
        const __mmask16 mask = lanes(linear.n - column - v * 16);
        store(to + v * 16, finish(v, mask), mask);
    }
}

// Computes rows [first, last) of the output in the columns of PANELS_IN_FLIGHT panels, the first of which starts at `column`.
// scale(row, column, sums, mask) converts the sums of 16 columns to float32.
template <class Microkernel, class Dot, class Scale>
void multiply(const LinearArgs& linear, Index column, Index first, Index last, const Scale& scale) {
    constexpr Index PANEL = Microkernel::PANEL, WIDTH = Microkernel::PANELS_IN_FLIGHT * PANEL;
    static_assert(DEPTH_BLOCK % Microkernel::STEP == 0);
    const Index columns = std::min(WIDTH, linear.n - column);
    const Index depth = round_up_to_step<Microkernel>((linear.bytes + 3) / 4);
    Group4* packed = scratch<PanelTag, Group4>(WIDTH * DEPTH_BLOCK);
    Group4* partial = scratch<PartialTag, Group4>(depth > DEPTH_BLOCK ? WIDTH * (last - first) : 0);
    Microkernel microkernel;
    const auto write_row = [&](Index row, Index at, const typename Dot::Sums* sums) __attribute__((always_inline)) {
        store_row<Microkernel::VECTORS>(linear, row, at, sums, scale);
    };
    typename Microkernel::template TileWriter<Dot, decltype(write_row)> writer(write_row);
    const auto overlap = [&]() __attribute__((always_inline)) { writer.step(); };
    for (Index begin = 0; begin < depth; begin += DEPTH_BLOCK) {
        const Index end = std::min(begin + DEPTH_BLOCK, depth);
        for (Index c = 0; c < columns; c += PANEL)
            pack_panel<Microkernel, Dot>(linear.weight + (column + c) * linear.bytes + begin * 4, linear.bytes,
                                  std::min(PANEL, columns - c), std::min(end * 4, linear.bytes) - begin * 4,
                                  packed + c * DEPTH_BLOCK);
        microkernel.template for_each_tile<Dot>(last - first, [&](auto tile, Index start) __attribute__((always_inline)) {
            const Index row = first + start;
            const auto* rows = linear.rows + row * linear.rows_stride + begin * Index(sizeof(Group4));
            for (Index c = 0; c < columns; c += PANEL) {
                Group4* sums = partial + c * (last - first) + start * PANEL;
                if (begin == 0) tile.clear();
                else tile.load(sums, PANEL);
                tile.add(rows, linear.rows_stride, packed + c * DEPTH_BLOCK, end - begin, overlap);
                if (end < depth) tile.store(sums, PANEL);
                else writer.submit(tile, row, column + c);
            }
        });
    }
    writer.drain();
}

template <class Microkernel, class Dot, class Scale>
void multiply(const LinearArgs& linear, int threads, const Scale& scale) {
    constexpr Index WIDTH = Microkernel::PANELS_IN_FLIGHT * Microkernel::PANEL;
    if (linear.m == 0 || linear.n == 0) return;
    const Index across = (linear.n + WIDTH - 1) / WIDTH;
    const Index splits = across >= TASKS_PER_THREAD * threads ? 1 : (TASKS_PER_THREAD * threads + across - 1) / across;
    const Index part = (linear.m + splits - 1) / splits;
    const Index rounded = (part + Microkernel::ROWS - 1) / Microkernel::ROWS * Microkernel::ROWS;
    const Index height = std::min(linear.m, std::max(MIN_ROWS_PER_TASK, rounded));
    const Index down = (linear.m + height - 1) / height;
    parallel_for(across * down, threads, [&](Index task) {
        const Index first = task / across * height;
        multiply<Microkernel, Dot>(linear, task % across * WIDTH, first, std::min(first + height, linear.m), scale);
    });
}

}  // namespace
}  // namespace allaprima

using namespace allaprima;

extern "C" void allaprima_linear_int8(const std::int8_t* rows, Index depth, const float* row_scale,
                                      const std::int32_t* row_sums, const std::int8_t* weight, const float* weight_scale,
                                      Index m, Index n, Index k, const Epilogue* epilogue, Bf16* out, Index out_stride,
                                      int threads) {
    const LinearArgs linear{reinterpret_cast<const std::uint8_t*>(rows), depth, reinterpret_cast<const std::uint8_t*>(weight),
                            k, m, n, *epilogue, out, out_stride};
    dispatch_isa(depth, [&](auto isa) {
        using Microkernel = typename decltype(isa)::Microkernel;
        using Dot = typename Microkernel::Int8Dot;
        multiply<Microkernel, Dot>(linear, threads, [&](Index row, Index column, __m512i sums, __mmask16 mask) {
            // With VNNI the packed weight has an unsigned offset of 128, which adds 128 times the sum of the row.
            if constexpr (Dot::UNSIGNED_OFFSET != 0) sums = _mm512_sub_epi32(sums, _mm512_set1_epi32(128 * row_sums[row]));
            const Floats scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(row_scale[row]));
            return _mm512_mul_ps(scaled, _mm512_maskz_loadu_ps(mask, weight_scale + column));
        });
    });
}

extern "C" void allaprima_linear_bf16(const Bf16* rows, Index rows_stride, const Bf16* weight, Index m, Index n, Index k,
                                      const Epilogue* epilogue, Bf16* out, Index out_stride, int threads) {
    const LinearArgs linear{reinterpret_cast<const std::uint8_t*>(rows), rows_stride * 2,
                            reinterpret_cast<const std::uint8_t*>(weight), k * 2, m, n, *epilogue, out, out_stride};
    dispatch_isa(k * 2, [&](auto isa) {
        using Microkernel = typename decltype(isa)::Microkernel;
        const auto unscaled = [](Index, Index, Floats sums, __mmask16) { return sums; };
        multiply<Microkernel, typename Microkernel::Bf16Dot>(linear, threads, unscaled);
    });
}
