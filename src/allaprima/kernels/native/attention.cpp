// Attention in bfloat16 with float32 sums, a block of queries and a block of keys at a time, with a running softmax.
//
// Source: Milakov and Gimelshein 2018 (1805.02867), the running maximum and sum; Dao et al. 2022 (2205.14135), the blocks.

#include <algorithm>
#include <limits>
#include <memory>

#include "kernels.h"
#include "scratch.h"
#include "tile.h"
#include "vectors.h"

namespace allaprima {
namespace {

constexpr Index QUERIES = 8 * ROWS;  // of a block
constexpr Index KEYS = 512;          // of a block, a multiple of PANEL
constexpr Index HEADS = 4;           // for each thread, where a head is one thread's

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

    Index key_panels() const { return (keys + PANEL - 1) / PANEL; }
    Index value_panels() const { return (width + PANEL - 1) / PANEL; }
    Index pairs() const { return key_panels() * PANEL / 2; }  // of keys, the words of the values' depth
};

// Lay the values of one head out as panel `p` of those whose depth is the keys; what is beyond the last key is zero.
void pack_values(const Attention& attention, const Bf16* from, Index p, Word* panels) {
    for (Index pair = 0; pair < attention.pairs(); ++pair) {
        Word* to = panels + (p * attention.pairs() + pair) * PANEL;
        for (Index group = 0; group < PANEL; group += 16) {
            const Index column = p * PANEL + group;
            __m512i both = _mm512_setzero_si512();
            for (Index half = 0; half < 2; ++half) {
                const Index key = 2 * pair + half;
                if (key >= attention.keys || column >= attention.width) continue;
                const __m256i row =
                    _mm256_maskz_loadu_epi16(lanes(attention.width - column), from + key * attention.v_stride + column);
                const __m512i wide = _mm512_cvtepu16_epi32(row);
                both = _mm512_or_si512(both, half ? _mm512_slli_epi32(wide, 16) : wide);
            }
            _mm512_storeu_si512(to + group, both);
        }
    }
}

// What a block of queries carries from one block of keys to the next.
struct Running {
    float largest[QUERIES], total[QUERIES];
    alignas(64) float scores[QUERIES * KEYS];
    alignas(64) Bf16 weights[QUERIES * KEYS];
};

struct KeysUser {};
struct ValuesUser {};
struct SumsUser {};
struct RunningUser {};

// Scores of a block: (rows, KEYS), scaled and with the bias.
void score(const Attention& attention, Index head, Index query, Index rows, Index key, Index keys, const Word* panels,
           float* scores) {
    const Bf16* q = attention.q + query * attention.q_stride + head * attention.width;
    const Floats scale = _mm512_set1_ps(attention.scale);
    for (Index p = 0; p * PANEL < keys; ++p) {
        const Word* panel = panels + (key / PANEL + p) * PANEL * (attention.width / 2);
        tiles<Bf16Dot>(rows, [&](auto tile, Index first) __attribute__((always_inline)) {
            tile.clear();
            tile.add(q + first * attention.q_stride, attention.q_stride * 2, panel, attention.width / 2);
            float* to = scores + first * KEYS + p * PANEL;
            Index row = query + first;
            for (auto& sums : tile.sums) {
                for (Index v = 0; v < VECTORS; ++v) {
                    Floats scaled = _mm512_mul_ps(sums[v], scale);
                    if (attention.bias) {
                        const Index column = key + p * PANEL + v * 16;
                        const float* bias = attention.bias + (head * attention.queries + row) * attention.keys + column;
                        scaled = _mm512_add_ps(scaled, _mm512_maskz_loadu_ps(lanes(attention.keys - column), bias));
                    }
                    _mm512_storeu_ps(to + v * 16, scaled);
                }
                to += KEYS;
                ++row;
            }
        });
    }
}

// Turn the scores of one row into weights that are not divided by their sum yet; what the row has summed so far must be
// multiplied by what is returned.
float soften(const float* scores, Index keys, float& largest, float& total, Bf16* weights) {
    Floats top = _mm512_set1_ps(largest);
    for (Index i = 0; i < keys; i += 16)
        top = _mm512_mask_max_ps(top, lanes(keys - i), top, _mm512_loadu_ps(scores + i));
    const float now = _mm512_reduce_max_ps(top);
    // Where nothing was seen yet but minus infinity, there is nothing to shrink, and infinity less infinity is no number.
    const bool is_nothing = now == -std::numeric_limits<float>::infinity();
    const Floats center = _mm512_set1_ps(is_nothing ? 0 : now);
    Floats sum = _mm512_setzero_ps();
    // Whole panels: the values have zeros there, and so must the weights.
    for (Index i = 0; i < (keys + PANEL - 1) / PANEL * PANEL; i += 16) {
        const Floats weight = _mm512_maskz_mov_ps(lanes(keys - i), exp(_mm512_sub_ps(_mm512_loadu_ps(scores + i), center)));
        sum = _mm512_add_ps(sum, weight);
        store(weights + i, weight);
    }
    const float shrink = is_nothing ? 1 : _mm512_cvtss_f32(exp(_mm512_set1_ps(largest - now)));
    total = total * shrink + _mm512_reduce_add_ps(sum);
    largest = now;
    return shrink;
}

// A block of queries of one head against all keys.
void attend(const Attention& attention, Index head, Index query, Index rows, const Word* keys, const Word* values) {
    const Index panels = attention.value_panels();
    auto& running = *scratch<RunningUser, Running>(1);
    float* sums = scratch<SumsUser, float>(QUERIES * PANEL * panels);  // a panel's rows together
    std::fill_n(sums, QUERIES * PANEL * panels, 0.f);
    std::fill_n(running.largest, QUERIES, -std::numeric_limits<float>::infinity());
    std::fill_n(running.total, QUERIES, 0.f);
    for (Index key = 0; key < attention.keys; key += KEYS) {
        const Index count = std::min(KEYS, attention.keys - key);
        score(attention, head, query, rows, key, count, keys, running.scores);
        for (Index row = 0; row < rows; ++row) {
            const float shrink = soften(running.scores + row * KEYS, count, running.largest[row], running.total[row],
                                        running.weights + row * KEYS);
            if (shrink == 1) continue;
            for (Index p = 0; p < panels; ++p) {
                float* partial = sums + (p * QUERIES + row) * PANEL;
                for (Index v = 0; v < PANEL; v += 16)
                    _mm512_store_ps(partial + v, _mm512_mul_ps(_mm512_load_ps(partial + v), _mm512_set1_ps(shrink)));
            }
        }
        const Index depth = (count + PANEL - 1) / PANEL * PANEL / 2;
        for (Index p = 0; p < panels; ++p) {
            const Word* panel = values + (p * attention.pairs() + key / 2) * PANEL;
            tiles<Bf16Dot>(rows, [&](auto tile, Index first) __attribute__((always_inline)) {
                auto* partial = reinterpret_cast<Word*>(sums + (p * QUERIES + first) * PANEL);
                tile.load(partial);
                tile.add(running.weights + first * KEYS, KEYS * 2, panel, depth);
                tile.store(partial);
            });
        }
    }
    for (Index row = 0; row < rows; ++row) {
        Bf16* to = attention.out + (query + row) * attention.out_stride + head * attention.width;
        const Floats total = _mm512_set1_ps(running.total[row]);
        for (Index column = 0; column < attention.width; column += 16) {
            const float* from = sums + (column / PANEL * QUERIES + row) * PANEL + column % PANEL;
            store(to + column, _mm512_div_ps(_mm512_load_ps(from), total), lanes(attention.width - column));
        }
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
    const Index blocks = (queries + QUERIES - 1) / QUERIES;
    const Index panel = PANEL * (width / 2), value_panel = attention.pairs() * PANEL;
    const auto pack_keys = [&](Index head, Index p, Word* to) {
        const auto* from = reinterpret_cast<const std::uint8_t*>(k + p * PANEL * k_stride + head * width);
        pack_panel<Bf16Dot>(from, k_stride * 2, std::min<Index>(PANEL, keys - p * PANEL), width * 2, to + p * panel);
    };
    const auto attend_block = [&](Index head, Index block, const Word* packed_keys, const Word* packed_values) {
        const Index query = block * QUERIES;
        attend(attention, head, query, std::min(QUERIES, queries - query), packed_keys, packed_values);
    };
    if (heads >= threads * HEADS) {
        share(heads, threads, [&](Index head) {
            Word* packed_keys = scratch<KeysUser, Word>(attention.key_panels() * panel);
            Word* packed_values = scratch<ValuesUser, Word>(attention.value_panels() * value_panel);
            for (Index p = 0; p < attention.key_panels(); ++p) pack_keys(head, p, packed_keys);
            for (Index p = 0; p < attention.value_panels(); ++p) pack_values(attention, v + head * width, p, packed_values);
            for (Index block = 0; block < blocks; ++block) attend_block(head, block, packed_keys, packed_values);
        });
        return;
    }
    // Too few heads for all threads: one after another, each by all of them.
    const std::unique_ptr<Word[]> packed_keys(new Word[std::size_t(attention.key_panels() * panel)]);
    const std::unique_ptr<Word[]> packed_values(new Word[std::size_t(attention.value_panels() * value_panel)]);
    for (Index head = 0; head < heads; ++head) {
        share(attention.key_panels() + attention.value_panels(), threads, [&](Index i) {
            if (i < attention.key_panels()) pack_keys(head, i, packed_keys.get());
            else pack_values(attention, v + head * width, i - attention.key_panels(), packed_values.get());
        });
        share(blocks, threads, [&](Index block) { attend_block(head, block, packed_keys.get(), packed_values.get()); });
    }
}
