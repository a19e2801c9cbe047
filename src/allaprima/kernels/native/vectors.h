// Operations on vectors of 16 float32 values: loads and stores in bfloat16, exponential, SiLU and GELU.
#pragma once

#include <cstdint>

#include "target_avx512.h"

namespace allaprima {

using Bf16 = std::uint16_t;
using Floats = __m512;

// Returns the mask of the first `count` lanes: no lane if `count` is negative, all 16 if it is larger.
inline __mmask16 lanes(std::int64_t count) {
    return count >= 16 ? __mmask16(0xffff) : __mmask16((1u << (count < 0 ? 0 : count)) - 1);
}

inline Floats widen(__m256i values) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16)); }

inline Floats load(const Bf16* from) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }

inline Floats load(const Bf16* from, __mmask16 mask) { return widen(_mm256_maskz_loadu_epi16(mask, from)); }

// Rounds to bfloat16, to nearest even, like torch. NaN remains NaN.
inline __m256i narrow(Floats values) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)); }

inline void store(Bf16* to, Floats values) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(values)); }

inline void store(Bf16* to, Floats values, __mmask16 mask) { _mm256_mask_storeu_epi16(to, mask, narrow(values)); }

// Stores two consecutive vectors.
inline void store(Bf16* to, Floats first, Floats second) {
    _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first)));
}

inline float widen(Bf16 value) {
    const std::uint32_t bits = std::uint32_t(value) << 16;
    float wide;
    __builtin_memcpy(&wide, &bits, sizeof wide);
    return wide;
}

constexpr float LOG2_E = 1.44269504f;

// Returns 2^x with a relative error of 3e-6, which is enough for results that are rounded to bfloat16. It is exactly 1 at 0, 0
// below -150, and NaN for NaN and +infinity. On [-1/2, 1/2], 2^x is the minimax polynomial of degree 4 with value 1 at 0.
inline Floats exp2_approx(Floats x) {
    x = _mm512_max_ps(_mm512_set1_ps(-150.f), x);  // returns the second operand if x is NaN
    const Floats n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
    const Floats r = _mm512_sub_ps(x, n);
    Floats sum = _mm512_set1_ps(0.00958285171f);
    sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(0.0559064266f));
    sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(0.240240987f));
    sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(0.693124193f));
    sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(1.f));
    return _mm512_scalef_ps(sum, n);
}

// Returns x / (1 + e^-y) with the error of `exp2_approx`. This is SiLU for y = x, and the tanh form of GELU for
// y = 2 sqrt(2/pi) (x + 0.044715 x^3). The exponent is clamped to 126, so that the inverse of the divisor is a normal number.
inline Floats times_sigmoid(Floats x, Floats y) {
    const Floats exponent = _mm512_min_ps(_mm512_set1_ps(126.f), _mm512_mul_ps(y, _mm512_set1_ps(-LOG2_E)));
    const Floats divisor = _mm512_add_ps(_mm512_set1_ps(1.f), exp2_approx(exponent));
    // A 14-bit estimate and one Newton step replace a division, which would take as long as the rest of this function.
    const Floats estimate = _mm512_rcp14_ps(divisor);
    const Floats inverse = _mm512_mul_ps(estimate, _mm512_fnmadd_ps(divisor, estimate, _mm512_set1_ps(2.f)));
    return _mm512_mul_ps(x, inverse);
}

inline Floats gelu(Floats x) {
    const Floats cubed = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    const Floats inner = _mm512_fmadd_ps(cubed, _mm512_set1_ps(0.044715f), x);
    return times_sigmoid(x, _mm512_mul_ps(inner, _mm512_set1_ps(1.5957691216f)));
}

}  // namespace allaprima
