// A small vector type over GCC and Clang's vector extension: one source, compiled once for each instruction set.
//
// INPAINT_FAST_ISA names the namespace, the compiler flags decide the width. Everything here lies in that namespace
// and nothing else may be included that defines inline functions (no <vector>, no torch header): the linker keeps one
// copy of an inline function, and it must not be one that was compiled for a processor the user does not have.
#pragma once

#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#define INPAINT_FAST_INLINE static inline __attribute__((always_inline))

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef double Doubles __attribute__((vector_size(kVectorBytes)));
typedef int32_t Int32s __attribute__((vector_size(kVectorBytes)));
typedef uint32_t UInt32s __attribute__((vector_size(kVectorBytes)));

// The type an element is computed in: float, or double for double.
template <class T>
struct Compute {
  typedef float Scalar;
  typedef Floats Vector;
};
template <>
struct Compute<double> {
  typedef double Scalar;
  typedef Doubles Vector;
};

template <class Vector>
constexpr int lanes() {
  return static_cast<int>(sizeof(Vector) / sizeof(Vector{}[0]));
}

// x in every lane; for a plain number, that number. Kernels written over V run on vectors and on single elements.
template <class V>
struct Broadcast {
  template <class Scalar>
  static V from(Scalar x) {
    // Less zero, for that is x, whatever x is: compilers leave it away and load x into every lane, by no more than a
    // load. Zero more would not be, of -0, and so they add.
    return static_cast<decltype(V{}[0] + 0)>(x) - V{};
  }
};
template <>
struct Broadcast<float> {
  template <class Scalar>
  static float from(Scalar x) {
    return static_cast<float>(x);
  }
};
template <>
struct Broadcast<double> {
  template <class Scalar>
  static double from(Scalar x) {
    return static_cast<double>(x);
  }
};
template <class V, class Scalar>
INPAINT_FAST_INLINE V broadcast(Scalar x) {
  return Broadcast<V>::from(x);
}

// ---- one element to and from float or double ----

INPAINT_FAST_INLINE float to_scalar(float x, float) { return x; }
INPAINT_FAST_INLINE double to_scalar(double x, double) { return x; }
template <class A>
INPAINT_FAST_INLINE A to_scalar(uint8_t x, A) {
  return static_cast<A>(x);
}
INPAINT_FAST_INLINE float to_scalar(BFloat16 x, float) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}
INPAINT_FAST_INLINE float to_scalar(Half x, float) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t rest = x.bits & 0x7fffu;
  float y;
  if (rest < 0x0400u) {  // zero or subnormal: value * 2^-24, exact in float
    y = static_cast<float>(rest) * 5.9604644775390625e-8f;
    uint32_t bits;
    memcpy(&bits, &y, 4);
    bits |= sign;
    memcpy(&y, &bits, 4);
    return y;
  }
  const uint32_t bits = sign | (rest >= 0x7c00u ? (rest << 13) | 0x7f800000u : (rest << 13) + 0x38000000u);
  memcpy(&y, &bits, 4);
  return y;
#endif
}

INPAINT_FAST_INLINE void from_scalar(float* p, float x) { *p = x; }
INPAINT_FAST_INLINE void from_scalar(double* p, double x) { *p = x; }
INPAINT_FAST_INLINE void from_scalar(BFloat16* p, float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  p->bits = static_cast<uint16_t>(nan ? 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
INPAINT_FAST_INLINE void from_scalar(Half* p, float x) {
#if defined(__F16C__)
  p->bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) {
    p->bits = sign | 0x7e00u;
  } else if (bits >= 0x477ff000u) {  // rounds to 65536 or more
    p->bits = sign | 0x7c00u;
  } else if (bits < 0x38800000u) {  // subnormal: adding 0.5 leaves the rounded value in the low bits of its sum
    float y;
    memcpy(&y, &bits, 4);
    y += 0.5f;
    memcpy(&bits, &y, 4);
    p->bits = static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  } else {
    bits += 0xc8000fffu + ((bits >> 13) & 1u);  // exponent bias 127 -> 15, round to nearest even
    p->bits = static_cast<uint16_t>(sign | (bits >> 13));
  }
#endif
}

// ---- a vector of elements to and from Floats or Doubles; any alignment ----

INPAINT_FAST_INLINE Floats load(const float* p, Floats) {
  Floats v;
  memcpy(&v, p, sizeof v);
  return v;
}
INPAINT_FAST_INLINE Doubles load(const double* p, Doubles) {
  Doubles v;
  memcpy(&v, p, sizeof v);
  return v;
}
INPAINT_FAST_INLINE Floats load(const uint8_t* p, Floats) {
  typedef uint8_t Bytes __attribute__((vector_size(kVectorBytes / 4)));
  Bytes b;
  memcpy(&b, p, sizeof b);
  return __builtin_convertvector(__builtin_convertvector(b, Int32s), Floats);
}
INPAINT_FAST_INLINE Doubles load(const uint8_t* p, Doubles) {
  Doubles v;
  for (int i = 0; i < lanes<Doubles>(); ++i) v[i] = p[i];
  return v;
}
INPAINT_FAST_INLINE Floats load(const BFloat16* p, Floats) {
  typedef uint16_t Words __attribute__((vector_size(kVectorBytes / 2)));
  Words w;
  memcpy(&w, p, sizeof w);
  const UInt32s bits = __builtin_convertvector(w, UInt32s) << 16;
  Floats v;
  memcpy(&v, &bits, sizeof v);
  return v;
}
INPAINT_FAST_INLINE Floats load(const Half* p, Floats) {
  Floats v;
#if defined(__AVX512F__)
  v = (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  v = (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  for (int i = 0; i < lanes<Floats>(); ++i) v[i] = to_scalar(p[i], 0.0f);
#endif
  return v;
}

INPAINT_FAST_INLINE void store(float* p, Floats v) { memcpy(p, &v, sizeof v); }
INPAINT_FAST_INLINE void store(double* p, Doubles v) { memcpy(p, &v, sizeof v); }
INPAINT_FAST_INLINE void store(BFloat16* p, Floats v) {
  typedef uint16_t Words __attribute__((vector_size(kVectorBytes / 2)));
  UInt32s bits;
  memcpy(&bits, &v, sizeof v);
  const UInt32s rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const UInt32s nan = (UInt32s)((bits & 0x7fffffffu) > 0x7f800000u);
  const UInt32s chosen = (rounded & ~nan) | (nan & 0x7fc0u);
  const Words w = __builtin_convertvector(chosen, Words);
  memcpy(p, &w, sizeof w);
}
INPAINT_FAST_INLINE void store(Half* p, Floats v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < lanes<Floats>(); ++i) from_scalar(p + i, v[i]);
#endif
}

// ---- the same names for one element ----

template <class T>
INPAINT_FAST_INLINE float load(const T* p, float) {
  return to_scalar(*p, 0.0f);
}
INPAINT_FAST_INLINE double load(const double* p, double) { return *p; }
INPAINT_FAST_INLINE void store(float* p, float x) { *p = x; }
INPAINT_FAST_INLINE void store(double* p, double x) { *p = x; }
INPAINT_FAST_INLINE void store(BFloat16* p, float x) { from_scalar(p, x); }
INPAINT_FAST_INLINE void store(Half* p, float x) { from_scalar(p, x); }

// ---- arithmetic, on vectors and on one element ----

INPAINT_FAST_INLINE float root(float x) { return __builtin_sqrtf(x); }
INPAINT_FAST_INLINE double root(double x) { return __builtin_sqrt(x); }
INPAINT_FAST_INLINE Floats root(Floats x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
  return (Floats)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (Floats)_mm_sqrt_ps((__m128)x);
#else
  for (int i = 0; i < lanes<Floats>(); ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}
INPAINT_FAST_INLINE Doubles root(Doubles x) {
#if defined(__AVX512F__)
  return (Doubles)_mm512_sqrt_pd((__m512d)x);
#elif defined(__AVX2__)
  return (Doubles)_mm256_sqrt_pd((__m256d)x);
#elif defined(__SSE2__)
  return (Doubles)_mm_sqrt_pd((__m128d)x);
#else
  for (int i = 0; i < lanes<Doubles>(); ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
#endif
}

// As torch.maximum and torch.clamp: NaN stays NaN.
template <class V>
INPAINT_FAST_INLINE V larger(V a, V b) {
  return (a > b) | (a != a) ? a : b;
}
template <class V>
INPAINT_FAST_INLINE V clamped(V x, V low, V high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// True when a lane of a comparison is.
template <class Comparison>
INPAINT_FAST_INLINE bool any(Comparison lanes_that_are) {
  uint64_t words[sizeof(Comparison) / 8], all = 0;
  memcpy(words, &lanes_that_are, sizeof words);
  for (uint64_t word : words) all |= word;
  return all != 0;
}

// Lane i of the result is lane from[i] of a followed by b.
INPAINT_FAST_INLINE Floats shuffled(Floats a, Floats b, Int32s from) {
#if defined(__GNUC__) && !defined(__clang__)
  return __builtin_shuffle(a, b, from);
#else
  Floats v;
  for (int i = 0; i < lanes<Floats>(); ++i)
    v[i] = from[i] < lanes<Floats>() ? a[from[i]] : b[from[i] - lanes<Floats>()];
  return v;
#endif
}

// Writes past the caches: for results larger than they are, so that no line is read only to be overwritten.
// p must be aligned to kVectorBytes. Types without such a store write as usual.
template <class T, class Vector>
INPAINT_FAST_INLINE void stream(T* p, Vector v) {
  store(p, v);
}
#if defined(__AVX512F__)
INPAINT_FAST_INLINE void stream(float* p, Floats v) { _mm512_stream_ps(p, (__m512)v); }
INPAINT_FAST_INLINE void stream(double* p, Doubles v) { _mm512_stream_pd(p, (__m512d)v); }
#elif defined(__AVX2__)
INPAINT_FAST_INLINE void stream(float* p, Floats v) { _mm256_stream_ps(p, (__m256)v); }
INPAINT_FAST_INLINE void stream(double* p, Doubles v) { _mm256_stream_pd(p, (__m256d)v); }
#elif defined(__SSE2__)
INPAINT_FAST_INLINE void stream(float* p, Floats v) { _mm_stream_ps(p, (__m128)v); }
INPAINT_FAST_INLINE void stream(double* p, Doubles v) { _mm_stream_pd(p, (__m128d)v); }
#endif

// Makes streamed writes visible to other threads; due once after the last one.
INPAINT_FAST_INLINE void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

INPAINT_FAST_INLINE bool is_aligned(const void* p) {
  return (reinterpret_cast<uintptr_t>(p) & (kVectorBytes - 1)) == 0;
}

}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
