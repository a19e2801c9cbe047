// Linears: rows of activations times a weight as it lies in memory, (n, k), a panel of columns at a time.
//
// A panel is laid out anew in every call, which is a small part of its products (of AVX-512's: 1/32 for 128 rows and 1/320 for
// 1280): so weights stay as every other reader wants them. The panels that stand abreast fit the L2 cache.

#include <algorithm>

#include "cores.h"
#include "kernels.h"
#include "scratch.h"
#include "vectors.h"

namespace allaprima {
namespace {

constexpr Index DEPTH = 768;  // words of a panel at a time
constexpr Index CHUNK = 192;  // rows of a task at least, where there are too few panels for all threads
constexpr Index TASKS = 4;    // for each thread, then

struct PanelUser {};
struct PartialUser {};

struct Linear {
    const std::uint8_t* rows;
    Index rows_stride;  // bytes
    const std::uint8_t* weight;
    Index bytes;  // of a row of the weight
    Index m, n;
    const Epilogue& epilogue;
    Bf16* out;
    Index out_stride;
};

// What follows for sixteen columns of one row, whose sums are in float32.
__attribute__((always_inline)) inline Floats follow(const Linear& linear, Index row, Index column, Floats sums, __mmask16 mask) {
    const Epilogue& then = linear.epilogue;
    if (then.bias) sums = _mm512_add_ps(sums, load(then.bias + column, mask));
    if (then.gelu) sums = gelu(sums);
    if (then.gate) sums = _mm512_mul_ps(sums, load(then.gate + column, mask));
    if (then.residual) sums = _mm512_add_ps(sums, load(then.residual + row * then.residual_stride + column, mask));
    return sums;
}

// One row of a finished tile, to memory.
template <int VECTORS, class Sums, class Scale>
__attribute__((always_inline)) inline void finish(const Linear& linear, Index row, Index column, const Sums* sums,
                                                  const Scale& scale) {
    const auto done = [&](Index v, __mmask16 mask) __attribute__((always_inline)) {
        const Index at = column + v * 16;
        return follow(linear, row, at, scale(row, at, sums[v], mask), mask);
    };
    Bf16* to = linear.out + row * linear.out_stride + column;
    if (column + VECTORS * 16 <= linear.n) {
        for (Index v = 0; v < VECTORS; v += 2) store(to + v * 16, done(v, 0xffff), done(v + 1, 0xffff));
        return;
    }
    for (Index v = 0; v < VECTORS && column + v * 16 < linear.n; ++v) {
        const __mmask16 mask = lanes(linear.n - column - v * 16);
        store(to + v * 16, done(v, mask), mask);
    }
}

// The rows `first` to before `last` of some panels side by side, the first of which begins at a column. scale(row, column,
// sums, mask) turns sums into float32.
template <class Core, class Dot, class Scale>
void multiply(const Linear& linear, Index column, Index first, Index last, const Scale& scale) {
    constexpr Index PANEL = Core::PANEL, WIDTH = Core::ABREAST * PANEL;
    static_assert(DEPTH % Core::STEP == 0);
    const Index columns = std::min(WIDTH, linear.n - column);
    const Index depth = whole_steps<Core>((linear.bytes + 3) / 4);
    Word* packed = scratch<PanelUser, Word>(WIDTH * DEPTH);
    Word* partial = scratch<PartialUser, Word>(depth > DEPTH ? WIDTH * (last - first) : 0);
    Core core;
    const auto finish_row = [&](Index row, Index at, const typename Dot::Sums* sums) __attribute__((always_inline)) {
        finish<Core::VECTORS>(linear, row, at, sums, scale);
    };
    typename Core::template Results<Dot, decltype(finish_row)> results(finish_row);
    const auto meanwhile = [&]() __attribute__((always_inline)) { results.step(); };
    for (Index begin = 0; begin < depth; begin += DEPTH) {
        const Index end = std::min(begin + DEPTH, depth);
        for (Index c = 0; c < columns; c += PANEL)
            pack_panel<Core, Dot>(linear.weight + (column + c) * linear.bytes + begin * 4, linear.bytes,
                                  std::min(PANEL, columns - c), std::min(end * 4, linear.bytes) - begin * 4,
                                  packed + c * DEPTH);
        core.template tiles<Dot>(last - first, [&](auto tile, Index start) __attribute__((always_inline)) {
            const Index row = first + start;
            const auto* rows = linear.rows + row * linear.rows_stride + begin * Index(sizeof(Word));
            for (Index c = 0; c < columns; c += PANEL) {
                Word* sums = partial + c * (last - first) + start * PANEL;
                if (begin == 0) tile.clear();
                else tile.load(sums, PANEL);
                tile.add(rows, linear.rows_stride, packed + c * DEPTH, end - begin, meanwhile);
                if (end < depth) tile.store(sums, PANEL);
                else results.take(tile, row, column + c);
            }
        });
    }
    results.drain();
}

template <class Core, class Dot, class Scale>
void multiply(const Linear& linear, int threads, const Scale& scale) {
    constexpr Index WIDTH = Core::ABREAST * Core::PANEL;
    if (linear.m == 0 || linear.n == 0) return;
    const Index across = (linear.n + WIDTH - 1) / WIDTH;
    const Index wanted = across >= TASKS * threads ? 1 : (TASKS * threads + across - 1) / across;
    const Index part = (linear.m + wanted - 1) / wanted;
    const Index height = std::min(linear.m, std::max(CHUNK, (part + Core::ROWS - 1) / Core::ROWS * Core::ROWS));
    const Index down = (linear.m + height - 1) / height;
    share(across * down, threads, [&](Index task) {
        const Index first = task / across * height;
        multiply<Core, Dot>(linear, task % across * WIDTH, first, std::min(first + height, linear.m), scale);
    });
}

}  // namespace
}  // namespace allaprima

using namespace allaprima;

extern "C" void allaprima_linear_int8(const std::int8_t* rows, Index depth, const float* row_scale,
                                      const std::int32_t* row_sums, const std::int8_t* weight, const float* weight_scale,
                                      Index m, Index n, Index k, const Epilogue* epilogue, Bf16* out, Index out_stride,
                                      int threads) {
    const Linear linear{reinterpret_cast<const std::uint8_t*>(rows), depth, reinterpret_cast<const std::uint8_t*>(weight),
                        k, m, n, *epilogue, out, out_stride};
    with_core(depth, [&](auto of) {
        using Core = typename decltype(of)::Core;
        using Dot = typename Core::Int8Dot;
        multiply<Core, Dot>(linear, threads, [&](Index row, Index column, __m512i sums, __mmask16 mask) {
            // The weight's numbers may have been raised by 128, and with them the sums by 128 times the row's.
            if constexpr (Dot::RAISE != 0) sums = _mm512_sub_epi32(sums, _mm512_set1_epi32(128 * row_sums[row]));
            const Floats scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(row_scale[row]));
            return _mm512_mul_ps(scaled, _mm512_maskz_loadu_ps(mask, weight_scale + column));
        });
    });
}

extern "C" void allaprima_linear_bf16(const Bf16* rows, Index rows_stride, const Bf16* weight, Index m, Index n, Index k,
                                      const Epilogue* epilogue, Bf16* out, Index out_stride, int threads) {
    const Linear linear{reinterpret_cast<const std::uint8_t*>(rows), rows_stride * 2,
                        reinterpret_cast<const std::uint8_t*>(weight), k * 2, m, n, *epilogue, out, out_stride};
    with_core(k * 2, [&](auto of) {
        using Core = typename decltype(of)::Core;
        multiply<Core, typename Core::Bf16Dot>(linear, threads, [](Index, Index, Floats sums, __mmask16) { return sums; });
    });
}
