// The activations and their derivatives on vectors and on single numbers, and the exponentials they rest on.
//
// `slope` is leaky_relu's negative slope and elu's alpha. NaN stays NaN, as in torch; -0 may become +0.
#pragma once

#include "common/vec.h"
#include "common/words.h"

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {

// ---- e^x and e^x - 1, to about 1 unit in the last place ----

INPAINT_FAST_INLINE uint32_t as_unsigned(int32_t x) { return static_cast<uint32_t>(x); }
INPAINT_FAST_INLINE UInt32s as_unsigned(Int32s x) { return (UInt32s)x; }

// e^x = 2^n * e^r with whole n and |r| <= ln(2) / 2, and e^r - 1 by its Taylor series up to r^7 (the next term is below
// 2^-25 of the sum). Bits: the signed integers of V's width.
template <class V, class Bits>
struct Exponential {
  Bits n;
  V minus_1;  // e^r - 1

  // 2^k as V, for -126 <= k <= 127; something for any other.
  static inline __attribute__((always_inline)) V power_of_2(Bits k) {
    const auto bits = (as_unsigned(k) + 127u) << 23;
    V power;
    memcpy(&power, &bits, sizeof power);
    return power;
  }

  // |x| <= 2^22 * ln(2) or NaN; NaN gives any n and minus_1 NaN.
  explicit inline __attribute__((always_inline)) Exponential(V x) {
    const float log2_e = 1.44269504f;
    // ln(2) in two parts: n times the first is exact.
    const float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    const V magic = broadcast<V>(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
    const V shifted = x * log2_e + magic, whole = shifted - magic;
    Bits bits, magic_bits;
    memcpy(&bits, &shifted, sizeof bits);
    memcpy(&magic_bits, &magic, sizeof bits);
    n = bits - magic_bits;
    const V r = (x - whole * ln2_high) - whole * ln2_low;
    V series = r * (1.0f / 5040) + 1.0f / 720;
    series = series * r + 1.0f / 120;
    series = series * r + 1.0f / 24;
    series = series * r + 1.0f / 6;
    series = series * r + 0.5f;
    minus_1 = series * (r * r) + r;
  }

  // Of x in [-104, 89]; beyond, the result is that of the bound.
  static inline __attribute__((always_inline)) V exp(V x) {
    const Exponential e(clamped(x, broadcast<V>(-104.0f), broadcast<V>(89.0f)));
    const Bits half = e.n >> 1;  // 2^n itself may be no float
    return (e.minus_1 + 1.0f) * power_of_2(half) * power_of_2(e.n - half);
  }
  // Below -20 it is -1, above 89 infinite.
  static inline __attribute__((always_inline)) V expm1(V x) {
    const Exponential e(clamped(x, broadcast<V>(-20.0f), broadcast<V>(89.0f)));
    const V half_power = power_of_2(e.n - 1);
    return 2.0f * (half_power * e.minus_1 + (half_power - 0.5f));
  }
};

INPAINT_FAST_INLINE float exponential(float x) { return Exponential<float, int32_t>::exp(x); }
INPAINT_FAST_INLINE Floats exponential(Floats x) { return Exponential<Floats, Int32s>::exp(x); }
INPAINT_FAST_INLINE double exponential(double x) { return __builtin_exp(x); }
INPAINT_FAST_INLINE Doubles exponential(Doubles x) {
  for (int i = 0; i < lanes<Doubles>(); ++i) x[i] = __builtin_exp(x[i]);
  return x;
}
INPAINT_FAST_INLINE float exponential_minus_1(float x) { return Exponential<float, int32_t>::expm1(x); }
INPAINT_FAST_INLINE Floats exponential_minus_1(Floats x) { return Exponential<Floats, Int32s>::expm1(x); }
INPAINT_FAST_INLINE double exponential_minus_1(double x) { return __builtin_expm1(x); }
INPAINT_FAST_INLINE Doubles exponential_minus_1(Doubles x) {
  for (int i = 0; i < lanes<Doubles>(); ++i) x[i] = __builtin_expm1(x[i]);
  return x;
}

// ---- the activations ----

constexpr bool has_exponential(Activation activation) {
  return activation == Activation::elu || activation == Activation::sigmoid || activation == Activation::tanh;
}

template <Activation A, class V>
INPAINT_FAST_INLINE V activated(V x, V slope) {
  const V zero = broadcast<V>(0), one = broadcast<V>(1);
  if constexpr (A == Activation::relu) return x < zero ? zero : x;
  if constexpr (A == Activation::leaky_relu) return x > zero ? x : x * slope;
  if constexpr (A == Activation::elu) return x > zero ? x : slope * exponential_minus_1(x > zero ? zero : x);
  if constexpr (A == Activation::sigmoid) {
    const V e = exponential(x < zero ? x : -x);  // never overflows
    return (x < zero ? e : one) / (one + e);
  }
  if constexpr (A == Activation::tanh) {
    const V two = broadcast<V>(2), e = exponential_minus_1(two * (x < zero ? x : -x));
    const V magnitude = e / (two + e);  // negative
    return x < zero ? magnitude : -magnitude;
  }
  return x;
}

// d activated(x) / dx, from x alone; at 0 what torch takes it for.
template <Activation A, class V>
INPAINT_FAST_INLINE V activation_slope(V x, V slope) {
  const V zero = broadcast<V>(0), one = broadcast<V>(1);
  if constexpr (A == Activation::relu) return x <= zero ? zero : one;
  if constexpr (A == Activation::leaky_relu) return x > zero ? one : slope;
  if constexpr (A == Activation::elu) return x > zero ? one : slope * exponential(x > zero ? zero : x);
  if constexpr (A == Activation::sigmoid) {
    const V e = exponential(x < zero ? x : -x), sum = one + e;
    return e / (sum * sum);
  }
  if constexpr (A == Activation::tanh) {
    const V e = exponential(broadcast<V>(2) * (x < zero ? x : -x)), sum = one + e;
    return broadcast<V>(4) * e / (sum * sum);
  }
  return one;
}

// g * d activated(x) / dx. relu's zero is one whatever g is, as in torch.
template <Activation A, class V>
INPAINT_FAST_INLINE V times_activation_slope(V g, V x, V slope) {
  if constexpr (A == Activation::none) return g;
  if constexpr (A == Activation::relu) return x <= broadcast<V>(0) ? broadcast<V>(0) : g;
  return g * activation_slope<A>(x, slope);
}

// ---- from a number at run time to a template argument ----

template <Activation A>
struct OfActivation {
  static constexpr Activation value = A;
};

// Calls run(OfActivation<A>{}) for the A that `activation` is.
template <class Run>
INPAINT_FAST_INLINE void with_activation(Activation activation, Run run) {
  switch (activation) {
    case Activation::none:
      return run(OfActivation<Activation::none>{});
    case Activation::relu:
      return run(OfActivation<Activation::relu>{});
    case Activation::leaky_relu:
      return run(OfActivation<Activation::leaky_relu>{});
    case Activation::elu:
      return run(OfActivation<Activation::elu>{});
    case Activation::sigmoid:
      return run(OfActivation<Activation::sigmoid>{});
    case Activation::tanh:
      return run(OfActivation<Activation::tanh>{});
  }
}

}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
