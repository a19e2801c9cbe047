// Attention in bfloat16 with float32 accumulators. It processes one block of queries and one block of keys at a time, with an
// online softmax. Notation: S = scale Q K^T + bias are the scores, P the unnormalised probabilities, O = P V the output.
//
// Source: Milakov and Gimelshein 2018 (1805.02867), online softmax; Dao et al. 2022 (2205.14135), FlashAttention's blocks.

#include <algorithm>
#include <limits>
#include <memory>

#include "kernels.h"
#include "microkernels.h"
#include "scratch.h"
#include "vectors.h"

namespace allaprima {
namespace {

constexpr Index KEY_BLOCK = 512;       // keys per block; a multiple of every PANEL
constexpr Index HEADS_PER_THREAD = 4;  // from this number of heads per thread on, each head is one task

// Queries per block; a multiple of the tile height.
template <class Microkernel>
constexpr Index QUERY_BLOCK = std::max(48, 2 * Microkernel::ROWS);

struct AttentionArgs {
    const Bf16* q;
    Index q_stride;
    const Bf16* k;
    Index k_stride;
    const Bf16* v;
    Index v_stride;
    const float* bias;
    float scale;
    Index queries, keys, width;
    Bf16* out;
    Index out_stride;
};

// The panel layout of one head's keys and values (see panel.h).
template <class Microkernel>
struct Panels {
    static constexpr Index PANEL = Microkernel::PANEL;
    const AttentionArgs& args;

    Index keys() const { return (args.keys + PANEL - 1) / PANEL; }
    Index values() const { return (args.width + PANEL - 1) / PANEL; }
    Index pairs() const { return keys() * PANEL / 2; }  // depth of the values in 4-byte groups, which have two keys each
    Index key_groups() const { return PANEL * (args.width / 2); }
    Index value_groups() const { return PANEL * pairs(); }

    // Packs panel `p` of one head's keys.
    void pack_keys(Index head, Index p, Group4* panels) const {
        const auto* from = reinterpret_cast<const std::uint8_t*>(args.k + p * PANEL * args.k_stride + head * args.width);
        pack_panel<Microkernel, typename Microkernel::Bf16Dot>(from, args.k_stride * 2, std::min(PANEL, args.keys - p * PANEL),
                                                               args.width * 2, panels + p * key_groups());
    }

    // Packs panel `p` of one head's values. Their depth is the keys; entries beyond the last key are zero.
    void pack_values(Index head, Index p, Group4* panels) const {
        for (Index pair = 0; pair < pairs(); ++pair) {
            Group4* to = panels + p * value_groups() + pair * PANEL;
            for (Index lane = 0; lane < PANEL; lane += 16) {
                const Index column = p * PANEL + lane;
                __m512i both = _mm512_setzero_si512();
                for (Index half = 0; half < 2; ++half) {
                    const Index key = 2 * pair + half;
                    if (key >= args.keys || column >= args.width) continue;
                    const Bf16* from = args.v + key * args.v_stride + head * args.width + column;
                    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(args.width - column), from));
                    both = _mm512_or_si512(both, half ? _mm512_slli_epi32(wide, 16) : wide);
                }
                _mm512_storeu_si512(to + lane, both);
            }
        }
    }
};

// The online softmax state of a block of queries. Scores are scaled by log2(e), so that the softmax uses 2^x. `scores` and
// `probabilities` are double buffered: the matrix products of one block of keys overlap with the softmax of another.
template <class Microkernel>
struct SoftmaxState {
    float row_max[QUERY_BLOCK<Microkernel>], row_sum[QUERY_BLOCK<Microkernel>];
    float correction[QUERY_BLOCK<Microkernel>];  // factor by which the last block of keys rescales the accumulator
    alignas(64) float scores[2][QUERY_BLOCK<Microkernel> * KEY_BLOCK];
    alignas(64) Bf16 probabilities[2][QUERY_BLOCK<Microkernel> * KEY_BLOCK];
};

struct KeysTag {};
struct ValuesTag {};
struct SumsTag {};
struct StateTag {};

// Multiplies the dot products of one row by `scale`, which includes log2(e), and adds the bias times log2(e).
void add_bias(float* scores, Index keys, float scale, const float* bias) {
    for (Index i = 0; i < keys; i += 16) {
        const Floats added = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes(keys - i), bias + i), _mm512_set1_ps(LOG2_E));
        _mm512_storeu_ps(scores + i, _mm512_fmadd_ps(_mm512_loadu_ps(scores + i), _mm512_set1_ps(scale), added));
    }
}

// Computes an online softmax step for one row (FlashAttention, algorithm 1). Updates `row_max` and `row_sum` with `keys` scores,
// which it multiplies by `scale`, and writes `count` unnormalised probabilities (whole panels; zero beyond the keys). Returns the
// factor by which the row's accumulator must be rescaled.
float online_softmax_row(const float* scores, Index keys, Index count, float scale, float& row_max, float& row_sum,
                         Bf16* probabilities) {
    const Floats factor = _mm512_set1_ps(scale);
    const Index full_lanes = keys / 16 * 16;
    Floats top = _mm512_set1_ps(row_max);
    for (Index i = 0; i < full_lanes; i += 16) top = _mm512_max_ps(top, _mm512_mul_ps(_mm512_loadu_ps(scores + i), factor));
    if (full_lanes < keys)
        top = _mm512_mask_max_ps(top, lanes(keys - full_lanes), top, _mm512_mul_ps(_mm512_loadu_ps(scores + full_lanes), factor));
    const float new_max = _mm512_reduce_max_ps(top);
    // If every score so far is -inf, the accumulator is still zero, and -inf - -inf would give NaN.
    const bool is_masked = new_max == -std::numeric_limits<float>::infinity();
    const Floats center = _mm512_set1_ps(is_masked ? 0 : new_max);
    const auto exponential = [&](Index i) __attribute__((always_inline)) {
        // `new_max` was computed without FMA, so an FMA here could give the largest score another probability than exactly 1.
        return exp2_approx(_mm512_sub_ps(_mm512_mul_ps(_mm512_loadu_ps(scores + i), factor), center));
    };
    Floats sum = _mm512_setzero_ps();
    Index i = 0;
    for (; i + 32 <= full_lanes; i += 32) {
        const Floats first = exponential(i), second = exponential(i + 16);
        sum = _mm512_add_ps(sum, _mm512_add_ps(first, second));
        store(probabilities + i, first, second);
    }
    for (; i < count; i += 16) {
        const Floats probability = _mm512_maskz_mov_ps(lanes(keys - i), exponential(i));
        sum = _mm512_add_ps(sum, probability);
        store(probabilities + i, probability);
    }
    const float correction = is_masked ? 1 : _mm512_cvtss_f32(exp2_approx(_mm512_set1_ps(row_max - new_max)));
    row_sum = row_sum * correction + _mm512_reduce_add_ps(sum);
    row_max = new_max;
    return correction;
}

// Computes the attention of one block of queries of one head to all keys.
template <class Microkernel>
class QueryBlock {
public:
    QueryBlock(const AttentionArgs& args, Index head, Index query, Index rows, const Group4* keys, const Group4* values)
        : args_(args), panels_{args}, head_(head), query_(query), rows_(rows), keys_(keys), values_(values) {
        std::fill_n(sums_, HEIGHT * PANEL * panels_.values(), 0.f);
        std::fill_n(state_.row_max, HEIGHT, -std::numeric_limits<float>::infinity());
        std::fill_n(state_.row_sum, HEIGHT, 0.f);
    }

    // Computes the output rows of the block. If the microkernel calls `overlap` between its steps, as AMX does, the softmax of key
    // block i overlaps with P V of block i - 1 and Q K^T of block i + 1; the softmax of the remaining rows follows these products.
    void attend() {
        const Index blocks = (args_.keys + KEY_BLOCK - 1) / KEY_BLOCK;
        if (blocks > 0) compute_qk(0, NoOverlap{});
        for (Index block = 0; block < blocks; ++block) {
            const bool has_next = block + 1 < blocks;
            const Index steps = (block ? pv_steps(block - 1) : 0) + (has_next ? qk_steps(block + 1) : 0);
            const Index steps_per_row = std::max<Index>(1, steps / rows_);
            Index row = 0, step = 0;
            const auto overlap = [&]() __attribute__((always_inline)) {
                if (++step % steps_per_row == 0 && row < rows_) softmax_row(block, row++);
            };
            if (block) accumulate_pv(block - 1, overlap);
            if (has_next) compute_qk(block + 1, overlap);
            while (row < rows_) softmax_row(block, row++);
            if (block) rescale();
        }
        if (blocks > 0) accumulate_pv(blocks - 1, NoOverlap{});
        for (Index row = 0; row < rows_; ++row) normalize_row(row);
    }

private:
    static constexpr Index PANEL = Microkernel::PANEL, HEIGHT = QUERY_BLOCK<Microkernel>;
    static_assert(HEIGHT % Microkernel::ROWS == 0 && KEY_BLOCK % PANEL == 0);
    static_assert(PANEL / 2 % Microkernel::STEP == 0, "a panel of keys must be a multiple of the step along the values' depth");
    using Dot = typename Microkernel::Bf16Dot;

    const AttentionArgs& args_;
    const Panels<Microkernel> panels_;
    const Index head_, query_, rows_;
    const Group4* const keys_;
    const Group4* const values_;
    Microkernel microkernel_;
    SoftmaxState<Microkernel>& state_ = *scratch<StateTag, SoftmaxState<Microkernel>>(1);
    float* const sums_ = scratch<SumsTag, float>(HEIGHT * PANEL * panels_.values());  // the P V accumulator, panel by panel

    Index keys_of(Index block) const { return std::min(KEY_BLOCK, args_.keys - block * KEY_BLOCK); }
    Index padded_keys_of(Index block) const { return (keys_of(block) + PANEL - 1) / PANEL * PANEL; }
    Index tiles() const { return (rows_ + Microkernel::ROWS - 1) / Microkernel::ROWS; }
    Index qk_steps(Index block) const { return tiles() * (padded_keys_of(block) / PANEL) * (args_.width / 2 / Microkernel::STEP); }
    Index pv_steps(Index block) const { return tiles() * panels_.values() * (padded_keys_of(block) / 2 / Microkernel::STEP); }

    // Computes Q K^T for one block of keys, without the scale.
    template <class Overlap>
    void compute_qk(Index block, const Overlap& overlap) {
        const Bf16* q = args_.q + query_ * args_.q_stride + head_ * args_.width;
        const Index depth = args_.width / 2;
        float* scores = state_.scores[block % 2];
        for (Index column = 0; column < keys_of(block); column += PANEL) {
            const Group4* panel = keys_ + (block * KEY_BLOCK + column) * depth;
            microkernel_.template for_each_tile<Dot>(rows_, [&](auto tile, Index first) __attribute__((always_inline)) {
                tile.clear();
                tile.add(q + first * args_.q_stride, args_.q_stride * 2, panel, depth, overlap);
                tile.store(reinterpret_cast<Group4*>(scores + first * KEY_BLOCK + column), KEY_BLOCK);
            });
        }
    }

    void softmax_row(Index block, Index row) {
        float* scores = state_.scores[block % 2] + row * KEY_BLOCK;
        const Index keys = keys_of(block);
        float scale = args_.scale * LOG2_E;
        if (args_.bias) {
            add_bias(scores, keys, scale, args_.bias + (head_ * args_.queries + query_ + row) * args_.keys + block * KEY_BLOCK);
            scale = 1;
        }
        state_.correction[row] = online_softmax_row(scores, keys, padded_keys_of(block), scale, state_.row_max[row],
                                                    state_.row_sum[row], state_.probabilities[block % 2] + row * KEY_BLOCK);
    }

    // Multiplies each row of the accumulator by its correction, which accounts for the row's new maximum.
    void rescale() {
        for (Index row = 0; row < rows_; ++row) {
            if (state_.correction[row] == 1) continue;
            const Floats factor = _mm512_set1_ps(state_.correction[row]);
            for (Index p = 0; p < panels_.values(); ++p) {
                float* partial = sums_ + (p * HEIGHT + row) * PANEL;
                for (Index v = 0; v < PANEL; v += 16)
                    _mm512_store_ps(partial + v, _mm512_mul_ps(_mm512_load_ps(partial + v), factor));
            }
        }
    }

    // Adds P V of one block of keys to the accumulator.
    template <class Overlap>
    void accumulate_pv(Index block, const Overlap& overlap) {
        const Index depth = padded_keys_of(block) / 2;
        for (Index p = 0; p < panels_.values(); ++p) {
            const Group4* panel = values_ + p * panels_.value_groups() + block * KEY_BLOCK / 2 * PANEL;
            microkernel_.template for_each_tile<Dot>(rows_, [&](auto tile, Index first) __attribute__((always_inline)) {
                auto* partial = reinterpret_cast<Group4*>(sums_ + (p * HEIGHT + first) * PANEL);
                tile.load(partial, PANEL);
                tile.add(state_.probabilities[block % 2] + first * KEY_BLOCK, KEY_BLOCK * 2, panel, depth, overlap);
                tile.store(partial, PANEL);
            });
        }
    }

    // Divides one row of the accumulator by the sum of the row's probabilities and writes it to `out`.
    void normalize_row(Index row) const {
        Bf16* to = args_.out + (query_ + row) * args_.out_stride + head_ * args_.width;
        const Floats inverse = _mm512_set1_ps(1 / state_.row_sum[row]);
        for (Index column = 0; column < args_.width; column += 16) {
            const float* from = sums_ + (column / PANEL * HEIGHT + row) * PANEL + column % PANEL;
            store(to + column, _mm512_mul_ps(_mm512_load_ps(from), inverse), lanes(args_.width - column));
        }
    }
};

template <class Microkernel>
void attend(const AttentionArgs& args, Index heads, int threads) {
    const Panels<Microkernel> panels{args};
    const Index blocks = (args.queries + QUERY_BLOCK<Microkernel> - 1) / QUERY_BLOCK<Microkernel>;
    const auto attend_block = [&](Index head, Index block, const Group4* keys, const Group4* values) {
        const Index query = block * QUERY_BLOCK<Microkernel>;
        const Index rows = std::min(QUERY_BLOCK<Microkernel>, args.queries - query);
        QueryBlock<Microkernel>(args, head, query, rows, keys, values).attend();
    };
    if (heads >= threads * HEADS_PER_THREAD) {
        parallel_for(heads, threads, [&](Index head) {
            Group4* keys = scratch<KeysTag, Group4>(panels.keys() * panels.key_groups());
            Group4* values = scratch<ValuesTag, Group4>(panels.values() * panels.value_groups());
            for (Index p = 0; p < panels.keys(); ++p) panels.pack_keys(head, p, keys);
            for (Index p = 0; p < panels.values(); ++p) panels.pack_values(head, p, values);
            for (Index block = 0; block < blocks; ++block) attend_block(head, block, keys, values);
        });
        return;
    }
    // There are too few heads for one task per head. The heads are computed one after another, and the panels and query blocks of a
    // head are distributed over the threads.
    const std::unique_ptr<Group4[]> keys(new Group4[std::size_t(panels.keys() * panels.key_groups())]);
    const std::unique_ptr<Group4[]> values(new Group4[std::size_t(panels.values() * panels.value_groups())]);
    for (Index head = 0; head < heads; ++head) {
        parallel_for(panels.keys() + panels.values(), threads, [&](Index i) {
            if (i < panels.keys()) panels.pack_keys(head, i, keys.get());
            else panels.pack_values(head, i - panels.keys(), values.get());
        });
        parallel_for(blocks, threads, [&](Index block) { attend_block(head, block, keys.get(), values.get()); });
    }
}

}  // namespace
}  // namespace allaprima

using namespace allaprima;

extern "C" void allaprima_attention(const Bf16* q, Index q_stride, const Bf16* k, Index k_stride, const Bf16* v,
                                    Index v_stride, const float* bias, float scale, Index heads, Index queries, Index keys,
                                    Index width, Bf16* out, Index out_stride, int threads) {
    const AttentionArgs args{q, q_stride, k, k_stride, v, v_stride, bias, scale, queries, keys, width, out, out_stride};
    if (queries == 0) return;
    dispatch_isa(width * 2, [&](auto isa) { attend<typename decltype(isa)::Microkernel>(args, heads, threads); });
}
