// Attention in bfloat16 with float32 sums, a block of queries and a block of keys at a time, with a running softmax.
//
// Source: Milakov and Gimelshein 2018 (1805.02867), the running maximum and sum; Dao et al. 2022 (2205.14135), the blocks.

#include <algorithm>
#include <limits>
#include <memory>

#include "cores.h"
#include "kernels.h"
#include "scratch.h"
#include "vectors.h"

namespace allaprima {
namespace {

constexpr Index KEYS = 512;  // of a block, whole panels
constexpr Index HEADS = 4;   // for each thread, where a head is one thread's

// Of a block: whole tiles.
template <class Core>
constexpr Index QUERIES = std::max(48, 2 * Core::ROWS);

struct Attention {
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

// How the keys and the values of one head lie in panels.
template <class Core>
struct Panels {
    static constexpr Index PANEL = Core::PANEL;
    const Attention& of;

    Index keys() const { return (of.keys + PANEL - 1) / PANEL; }
    Index values() const { return (of.width + PANEL - 1) / PANEL; }
    Index pairs() const { return keys() * PANEL / 2; }  // of keys, the words of the values' depth
    Index key_words() const { return PANEL * (of.width / 2); }
    Index value_words() const { return PANEL * pairs(); }

    // Lay the keys of one head out as panel `p`.
    void pack_keys(Index head, Index p, Word* panels) const {
        const auto* from = reinterpret_cast<const std::uint8_t*>(of.k + p * PANEL * of.k_stride + head * of.width);
        pack_panel<Core, typename Core::Bf16Dot>(from, of.k_stride * 2, std::min(PANEL, of.keys - p * PANEL), of.width * 2,
                                                 panels + p * key_words());
    }

    // Lay the values of one head out as panel `p` of those whose depth is the keys; what is beyond the last key is zero.
    void pack_values(Index head, Index p, Word* panels) const {
        for (Index pair = 0; pair < pairs(); ++pair) {
            Word* to = panels + p * value_words() + pair * PANEL;
            for (Index group = 0; group < PANEL; group += 16) {
                const Index column = p * PANEL + group;
                __m512i both = _mm512_setzero_si512();
                for (Index half = 0; half < 2; ++half) {
                    const Index key = 2 * pair + half;
                    if (key >= of.keys || column >= of.width) continue;
                    const Bf16* from = of.v + key * of.v_stride + head * of.width + column;
                    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(of.width - column), from));
                    both = _mm512_or_si512(both, half ? _mm512_slli_epi32(wide, 16) : wide);
                }
                _mm512_storeu_si512(to + group, both);
            }
        }
    }
};

// What a block of queries carries from one block of keys to the next. Scores are logits times log2(e). There are two of what is
// written and read by products, since those of one block of keys may go on beside the softmax of another.
template <class Core>
struct Running {
    float largest[QUERIES<Core>], total[QUERIES<Core>], shrink[QUERIES<Core>];
    alignas(64) float scores[2][QUERIES<Core> * KEYS];
    alignas(64) Bf16 weights[2][QUERIES<Core> * KEYS];
};

struct KeysUser {};
struct ValuesUser {};
struct SumsUser {};
struct RunningUser {};

// Scale a row's products and add the bias.
void add_bias(float* scores, Index keys, float scale, const float* bias) {
    for (Index i = 0; i < keys; i += 16) {
        const Floats added = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes(keys - i), bias + i), _mm512_set1_ps(LOG2_E));
        _mm512_storeu_ps(scores + i, _mm512_fmadd_ps(_mm512_loadu_ps(scores + i), _mm512_set1_ps(scale), added));
    }
}

// Turn the scores of one row, which are yet to be scaled, into weights that are not divided by their sum yet: `count` of them, whole
// panels, zero behind the keys. What the row has summed so far must be multiplied by what is returned.
float soften(const float* scores, Index keys, Index count, float scale, float& largest, float& total, Bf16* weights) {
    const Floats factor = _mm512_set1_ps(scale);
    const Index whole = keys / 16 * 16;
    Floats top = _mm512_set1_ps(largest);
    for (Index i = 0; i < whole; i += 16) top = _mm512_max_ps(top, _mm512_mul_ps(_mm512_loadu_ps(scores + i), factor));
    if (whole < keys)
        top = _mm512_mask_max_ps(top, lanes(keys - whole), top, _mm512_mul_ps(_mm512_loadu_ps(scores + whole), factor));
    const float now = _mm512_reduce_max_ps(top);
    // Where nothing was seen yet but minus infinity, there is nothing to shrink, and infinity less infinity is no number.
    const bool is_nothing = now == -std::numeric_limits<float>::infinity();
    const Floats center = _mm512_set1_ps(is_nothing ? 0 : now);
    const auto weigh = [&](Index i) __attribute__((always_inline)) {
        // Not fused, as the largest was not: it must give 1.
        return exp2_roughly(_mm512_sub_ps(_mm512_mul_ps(_mm512_loadu_ps(scores + i), factor), center));
    };
    Floats sum = _mm512_setzero_ps();
    Index i = 0;
    for (; i + 32 <= whole; i += 32) {
        const Floats first = weigh(i), second = weigh(i + 16);
        sum = _mm512_add_ps(sum, _mm512_add_ps(first, second));
        store(weights + i, first, second);
    }
    for (; i < count; i += 16) {
        const Floats weight = _mm512_maskz_mov_ps(lanes(keys - i), weigh(i));
        sum = _mm512_add_ps(sum, weight);
        store(weights + i, weight);
    }
    const float shrink = is_nothing ? 1 : _mm512_cvtss_f32(exp2_roughly(_mm512_set1_ps(largest - now)));
    total = total * shrink + _mm512_reduce_add_ps(sum);
    largest = now;
    return shrink;
}

// A block of queries of one head against all keys.
template <class Core>
class Block {
public:
    Block(const Attention& of, Index head, Index query, Index rows, const Word* keys, const Word* values)
        : of_(of), panels_{of}, head_(head), query_(query), rows_(rows), keys_(keys), values_(values) {
        std::fill_n(sums_, HEIGHT * PANEL * panels_.values(), 0.f);
        std::fill_n(running_.largest, HEIGHT, -std::numeric_limits<float>::infinity());
        std::fill_n(running_.total, HEIGHT, 0.f);
    }

    // Rows are softened while the products before and behind them are made, by a core that has room for that.
    void attend() {
        const Index blocks = (of_.keys + KEYS - 1) / KEYS;
        if (blocks > 0) score(0, Nothing{});
        for (Index block = 0; block < blocks; ++block) {
            const bool has_next = block + 1 < blocks;
            const Index steps = (block ? weigh_steps(block - 1) : 0) + (has_next ? score_steps(block + 1) : 0);
            const Index pace = std::max<Index>(1, steps / rows_);
            Index row = 0, step = 0;
            const auto meanwhile = [&]() __attribute__((always_inline)) {
                if (++step % pace == 0 && row < rows_) soften_row(block, row++);
            };
            if (block) weigh(block - 1, meanwhile);
            if (has_next) score(block + 1, meanwhile);
            while (row < rows_) soften_row(block, row++);
            if (block) shrink();
        }
        if (blocks > 0) weigh(blocks - 1, Nothing{});
        for (Index row = 0; row < rows_; ++row) finish(row);
    }

private:
    static constexpr Index PANEL = Core::PANEL, HEIGHT = QUERIES<Core>;
    static_assert(HEIGHT % Core::ROWS == 0 && KEYS % PANEL == 0);
    static_assert(PANEL / 2 % Core::STEP == 0, "a panel of keys is whole steps of the values' depth");
    using Dot = typename Core::Bf16Dot;

    const Attention& of_;
    const Panels<Core> panels_;
    const Index head_, query_, rows_;
    const Word* const keys_;
    const Word* const values_;
    Core core_;
    Running<Core>& running_ = *scratch<RunningUser, Running<Core>>(1);
    float* const sums_ = scratch<SumsUser, float>(HEIGHT * PANEL * panels_.values());  // a panel's rows together

    Index keys_of(Index block) const { return std::min(KEYS, of_.keys - block * KEYS); }
    Index padded_keys_of(Index block) const { return (keys_of(block) + PANEL - 1) / PANEL * PANEL; }
    Index tiles() const { return (rows_ + Core::ROWS - 1) / Core::ROWS; }
    Index score_steps(Index block) const { return tiles() * (padded_keys_of(block) / PANEL) * (of_.width / 2 / Core::STEP); }
    Index weigh_steps(Index block) const { return tiles() * panels_.values() * (padded_keys_of(block) / 2 / Core::STEP); }

    // Plain products with a block of keys.
    template <class Meanwhile>
    void score(Index block, const Meanwhile& meanwhile) {
        const Bf16* q = of_.q + query_ * of_.q_stride + head_ * of_.width;
        const Index depth = of_.width / 2;
        float* scores = running_.scores[block % 2];
        for (Index column = 0; column < keys_of(block); column += PANEL) {
            const Word* panel = keys_ + (block * KEYS + column) * depth;
            core_.template tiles<Dot>(rows_, [&](auto tile, Index first) __attribute__((always_inline)) {
                tile.clear();
                tile.add(q + first * of_.q_stride, of_.q_stride * 2, panel, depth, meanwhile);
                tile.store(reinterpret_cast<Word*>(scores + first * KEYS + column), KEYS);
            });
        }
    }

    void soften_row(Index block, Index row) {
        float* scores = running_.scores[block % 2] + row * KEYS;
        const Index keys = keys_of(block);
        float scale = of_.scale * LOG2_E;
        if (of_.bias) {
            add_bias(scores, keys, scale, of_.bias + (head_ * of_.queries + query_ + row) * of_.keys + block * KEYS);
            scale = 1;
        }
        running_.shrink[row] = soften(scores, keys, padded_keys_of(block), scale, running_.largest[row], running_.total[row],
                                      running_.weights[block % 2] + row * KEYS);
    }

    // Bring what was summed so far down to a new largest score.
    void shrink() {
        for (Index row = 0; row < rows_; ++row) {
            if (running_.shrink[row] == 1) continue;
            const Floats factor = _mm512_set1_ps(running_.shrink[row]);
            for (Index p = 0; p < panels_.values(); ++p) {
                float* partial = sums_ + (p * HEIGHT + row) * PANEL;
                for (Index v = 0; v < PANEL; v += 16)
                    _mm512_store_ps(partial + v, _mm512_mul_ps(_mm512_load_ps(partial + v), factor));
            }
        }
    }

    // Add the values of a block of keys, times their weights.
    template <class Meanwhile>
    void weigh(Index block, const Meanwhile& meanwhile) {
        const Index depth = padded_keys_of(block) / 2;
        for (Index p = 0; p < panels_.values(); ++p) {
            const Word* panel = values_ + p * panels_.value_words() + block * KEYS / 2 * PANEL;
            core_.template tiles<Dot>(rows_, [&](auto tile, Index first) __attribute__((always_inline)) {
                auto* partial = reinterpret_cast<Word*>(sums_ + (p * HEIGHT + first) * PANEL);
                tile.load(partial, PANEL);
                tile.add(running_.weights[block % 2] + first * KEYS, KEYS * 2, panel, depth, meanwhile);
                tile.store(partial, PANEL);
            });
        }
    }

    // One row, to memory.
    void finish(Index row) const {
        Bf16* to = of_.out + (query_ + row) * of_.out_stride + head_ * of_.width;
        const Floats inverse = _mm512_set1_ps(1 / running_.total[row]);
        for (Index column = 0; column < of_.width; column += 16) {
            const float* from = sums_ + (column / PANEL * HEIGHT + row) * PANEL + column % PANEL;
            store(to + column, _mm512_mul_ps(_mm512_load_ps(from), inverse), lanes(of_.width - column));
        }
    }
};

template <class Core>
void attend(const Attention& attention, Index heads, int threads) {
    const Panels<Core> panels{attention};
    const Index blocks = (attention.queries + QUERIES<Core> - 1) / QUERIES<Core>;
    const auto attend_block = [&](Index head, Index block, const Word* keys, const Word* values) {
        const Index query = block * QUERIES<Core>;
        Block<Core>(attention, head, query, std::min(QUERIES<Core>, attention.queries - query), keys, values).attend();
    };
    if (heads >= threads * HEADS) {
        share(heads, threads, [&](Index head) {
            Word* keys = scratch<KeysUser, Word>(panels.keys() * panels.key_words());
            Word* values = scratch<ValuesUser, Word>(panels.values() * panels.value_words());
            for (Index p = 0; p < panels.keys(); ++p) panels.pack_keys(head, p, keys);
            for (Index p = 0; p < panels.values(); ++p) panels.pack_values(head, p, values);
            for (Index block = 0; block < blocks; ++block) attend_block(head, block, keys, values);
        });
        return;
    }
    // Too few heads for all threads: one after another, each by all of them.
    const std::unique_ptr<Word[]> keys(new Word[std::size_t(panels.keys() * panels.key_words())]);
    const std::unique_ptr<Word[]> values(new Word[std::size_t(panels.values() * panels.value_words())]);
    for (Index head = 0; head < heads; ++head) {
        share(panels.keys() + panels.values(), threads, [&](Index i) {
            if (i < panels.keys()) panels.pack_keys(head, i, keys.get());
            else panels.pack_values(head, i - panels.keys(), values.get());
        });
        share(blocks, threads, [&](Index block) { attend_block(head, block, keys.get(), values.get()); });
    }
}

}  // namespace
}  // namespace allaprima

using namespace allaprima;

extern "C" void allaprima_attention(const Bf16* q, Index q_stride, const Bf16* k, Index k_stride, const Bf16* v,
                                    Index v_stride, const float* bias, float scale, Index heads, Index queries, Index keys,
                                    Index width, Bf16* out, Index out_stride, int threads) {
    const Attention attention{q, q_stride, k, k_stride, v, v_stride, bias, scale, queries, keys, width, out, out_stride};
    if (queries == 0) return;
    with_core(width * 2, [&](auto of) { attend<typename decltype(of)::Core>(attention, heads, threads); });
}
