// norm_act on the CPU: four steps over a chunk of the tensor, each in both memory orders from one source.
//
// Elements are computed in float (double for double); sums are added up in double, in an order that depends on the
// shape alone. Moments are taken about the chunk's first value, which leaves no large numbers to cancel. The gradient
// recomputes z and the activation's slope from the input. Compiled once for each instruction set (INPAINT_FAST_ISA).
#include "norm_act/params.h"

// Every loop is written in vectors already: -O3 would make vectors of what is left over too, in three times the code.
// Code for a plain x86 processor has less than that already (setup.py).
#if defined(__AVX2__) || !defined(__SSE2__)
#pragma GCC optimize("O2")
#endif

#include "common/activation.h"
#include "common/vec.h"

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {
namespace {

#define INPAINT_FAST_MEMBER inline __attribute__((always_inline))

// ---- the parameters and sums of channels; `c` counts from the chunk's first one ----

// In planes there is one channel: a number in every lane.
template <class A, bool Rows>
struct Parameter {
  A value;
  Parameter(const double* values, const NormActChunk& chunk) : value(static_cast<A>(values[chunk.channel_begin])) {}
  Parameter() = default;
  INPAINT_FAST_MEMBER void set(int64_t c, A x) { value = x; }
  INPAINT_FAST_MEMBER A get(int64_t c) const { return value; }
  template <class V>
  INPAINT_FAST_MEMBER V at(int64_t c, V) const {
    return broadcast<V>(value);
  }
};
template <class A>
struct Parameter<A, true> {
  A values[kNormActChannels];
  Parameter(const double* of_all, const NormActChunk& chunk) {
    for (int64_t c = chunk.channel_begin; c < chunk.channel_end; ++c)
      values[c - chunk.channel_begin] = static_cast<A>(of_all[c]);
  }
  Parameter() = default;
  INPAINT_FAST_MEMBER void set(int64_t c, A x) { values[c] = x; }
  INPAINT_FAST_MEMBER A get(int64_t c) const { return values[c]; }
  template <class V>
  INPAINT_FAST_MEMBER V at(int64_t c, V) const {
    return load(values + c, V{});
  }
};

// A vector as one or two vectors of doubles.
template <class V>
struct Wide;
template <>
struct Wide<Doubles> {
  Doubles parts[1];
  explicit INPAINT_FAST_MEMBER Wide(Doubles x) : parts{x} {}
};
template <>
struct Wide<Floats> {
  Doubles parts[2];
  explicit INPAINT_FAST_MEMBER Wide(Floats x) {
#if defined(__AVX512F__)
    parts[0] = (Doubles)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)x));
    parts[1] = (Doubles)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)x, 1));
#elif defined(__AVX2__)
    parts[0] = (Doubles)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)x));
    parts[1] = (Doubles)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)x, 1));
#elif defined(__SSE2__)
    parts[0] = (Doubles)_mm_cvtps_pd((__m128)x);
    parts[1] = (Doubles)_mm_cvtps_pd(_mm_movehl_ps((__m128)x, (__m128)x));
#else
    for (int i = 0; i < lanes<Doubles>(); ++i) parts[0][i] = x[i], parts[1][i] = x[lanes<Doubles>() + i];
#endif
  }
};

// A number as one of doubles.
template <>
struct Wide<float> {
  double parts[1];
  explicit INPAINT_FAST_MEMBER Wide(float x) : parts{x} {}
};
template <>
struct Wide<double> {
  double parts[1];
  explicit INPAINT_FAST_MEMBER Wide(double x) : parts{x} {}
};

// ---- one chunk ----

// Element of the chunk's first sample and pixel, channel c.
template <bool Rows>
int64_t first_element(const NormAct& args, const NormActChunk& chunk, int64_t c) {
  if (Rows) return chunk.pixel_begin * args.channels + chunk.channel_begin + c;
  return (chunk.sample_begin * args.channels + chunk.channel_begin) * args.pixels + chunk.pixel_begin;
}

// Calls step(i, c, V{}) for `count` elements from element i on: whole vectors, then single ones.
template <class T, bool Rows, class Step>
INPAINT_FAST_INLINE void walk_run(int64_t i, int64_t count, Step step) {
  typedef typename Compute<T>::Vector V;
  typedef typename Compute<T>::Scalar A;
  int64_t at = 0;
  for (; at + lanes<V>() <= count; at += lanes<V>()) step(i + at, at, V{});
  for (; at < count; ++at) step(i + at, at, A{});
}
template <class T, bool Rows, class Step>
INPAINT_FAST_INLINE void walk(const NormAct& args, const NormActChunk& chunk, Step step) {
  int64_t i = first_element<Rows>(args, chunk, 0);
  if (Rows) {
    for (int64_t pixel = chunk.pixel_begin; pixel < chunk.pixel_end; ++pixel, i += args.channels)
      walk_run<T, Rows>(i, chunk.channel_end - chunk.channel_begin, step);
  } else {
    for (int64_t sample = chunk.sample_begin; sample < chunk.sample_end; ++sample, i += args.channels * args.pixels)
      walk_run<T, Rows>(i, chunk.pixel_end - chunk.pixel_begin, step);
  }
}

// Vectors of channels whose sums, four registers each in float32, are added up at a time. One where an exponential
// takes the time, and of doubles, the type of references: the same sums, in a fraction of the code to compile.
#if defined(__AVX512F__)
constexpr int kMostSumVectors = 4;
#else
constexpr int kMostSumVectors = 2;
#endif
template <class T, Activation F>
constexpr int kSumVectors = std::is_same_v<T, double> || has_exponential(F) ? 1 : kMostSumVectors;

// Sums of N vectors V side by side.
template <class V, int N>
struct Sums {
  static constexpr int kParts = sizeof(Wide<V>) / sizeof(Wide<V>{V{}}.parts[0]);
  typedef std::remove_reference_t<decltype(Wide<V>{V{}}.parts[0])> Part;
  Part first[N * kParts] = {}, second[N * kParts] = {};

  // a, b: of the n-th of the vectors.
  INPAINT_FAST_MEMBER void add(int n, const Wide<V>& a, const Wide<V>& b) {
    for (int part = 0; part < kParts; ++part) {
      first[n * kParts + part] += a.parts[part];
      second[n * kParts + part] += a.parts[part] * b.parts[part];
    }
  }
};

// Calls term(element, channel, zero) for every element of the chunk, with a zero of the type of vector or number to
// take there; it returns a pair a, b of Wide. firsts, seconds: the sums of a and of a * b of each channel.
template <class T, bool Rows, int Vectors, class Term>
INPAINT_FAST_INLINE void add_up(const NormAct& args, const NormActChunk& chunk, double* firsts, double* seconds,
                                Term term) {
  typedef typename Compute<T>::Vector V;
  typedef typename Compute<T>::Scalar A;
  if constexpr (Rows) {
    const int64_t channels = chunk.channel_end - chunk.channel_begin;
    for (int64_t c = 0; c < channels; ++c) firsts[c] = seconds[c] = 0;
    // All pixels at a time where the registers hold all channels; otherwise few, to read memory in its order.
    const int64_t pixels = channels <= Vectors * lanes<V>() ? kNormActPixels : 4;
    NormActChunk few = chunk;
    for (; few.pixel_begin < chunk.pixel_end; few.pixel_begin = few.pixel_end) {
      few.pixel_end = few.pixel_begin + pixels < chunk.pixel_end ? few.pixel_begin + pixels : chunk.pixel_end;
      int64_t c = 0;
      const auto add_channels = [&](auto zero, auto vectors) __attribute__((always_inline)) {
        typedef decltype(zero) U;
        constexpr int kVectors = decltype(vectors)::value, kWidth = sizeof(U) / sizeof(A);
        for (; c + kVectors * kWidth <= channels; c += kVectors * kWidth) {
          Sums<U, kVectors> sums;
          __builtin_memcpy(sums.first, firsts + c, sizeof sums.first);
          __builtin_memcpy(sums.second, seconds + c, sizeof sums.second);
          int64_t i = first_element<true>(args, few, c);
          for (int64_t pixel = few.pixel_begin; pixel < few.pixel_end; ++pixel, i += args.channels) {
#pragma GCC unroll 4
            for (int n = 0; n < kVectors; ++n) {
              const auto [a, b] = term(i + n * kWidth, c + n * kWidth, zero);
              sums.add(n, a, b);
            }
          }
          __builtin_memcpy(firsts + c, sums.first, sizeof sums.first);
          __builtin_memcpy(seconds + c, sums.second, sizeof sums.second);
        }
      };
      if constexpr (Vectors > 1) add_channels(V{}, std::integral_constant<int, Vectors>{});
      add_channels(V{}, std::integral_constant<int, 1>{});
      add_channels(A{}, std::integral_constant<int, 1>{});
    }
  } else {
    Sums<V, 1> sums;
    Sums<A, 1> rest;
    walk<T, false>(args, chunk, [&](int64_t i, int64_t c, auto zero) __attribute__((always_inline)) {
      const auto [a, b] = term(i, c, zero);
      if constexpr (std::is_same_v<decltype(zero), A>)
        rest.add(0, a, b);
      else
        sums.add(0, a, b);
    });
    *firsts = rest.first[0], *seconds = rest.second[0];
    for (int part = 1; part < sums.kParts; ++part)
      sums.first[0] += sums.first[part], sums.second[0] += sums.second[part];
    for (int lane = 0; lane < lanes<Doubles>(); ++lane)
      *firsts += sums.first[0][lane], *seconds += sums.second[0][lane];
  }
}

template <class T, class V>
INPAINT_FAST_INLINE void put(T* p, V v, bool past_caches) {
  if (past_caches && is_aligned(p))
    stream(p, v);
  else
    store(p, v);
}
INPAINT_FAST_INLINE void put(float* p, float x, bool) { *p = x; }
INPAINT_FAST_INLINE void put(double* p, double x, bool) { *p = x; }
INPAINT_FAST_INLINE void put(Half* p, float x, bool) { from_scalar(p, x); }
INPAINT_FAST_INLINE void put(BFloat16* p, float x, bool) { from_scalar(p, x); }

template <class T, bool Rows, Activation F, bool ActFirst>
struct Steps {
  typedef typename Compute<T>::Scalar A;
  typedef Parameter<A, Rows> OfChannels;

  const NormAct& args;
  const NormActChunk& chunk;
  const T* input = static_cast<const T*>(args.input);
  const T* grad = static_cast<const T*>(args.grad);
  T* output = static_cast<T*>(args.output);
  A slope = static_cast<A>(args.slope);
  int64_t channels = chunk.channel_end - chunk.channel_begin;
  static constexpr int kVectors = kSumVectors<T, F>;

  template <class V>
  INPAINT_FAST_MEMBER V u_of(V x) const {
    return ActFirst ? activated<F>(x, broadcast<V>(slope)) : x;
  }

  void moments(double* means, double* squares) const {
    Parameter<double, Rows> shift;
    for (int64_t c = 0; c < channels; ++c) {
      const A u = u_of(to_scalar(input[first_element<Rows>(args, chunk, c)], A{}));
      shift.set(c, u - u == 0 ? u : 0);  // an infinite one would make every difference NaN
    }
    const auto term = [&](int64_t i, int64_t c, auto zero) __attribute__((always_inline)) {
      Wide<decltype(zero)> d(u_of(load(input + i, zero)));
      int64_t at = c;
      for (auto& part : d.parts) part -= shift.at(at, part), at += sizeof part / sizeof(double);
      return std::make_pair(d, d);
    };
    add_up<T, Rows, kVectors>(args, chunk, means, squares, term);
    const double n = static_cast<double>(chunk.count());
    for (int64_t c = 0; c < channels; ++c) {
      const double sum = means[c], about_mean = squares[c] - sum * sum / n;
      means[c] = shift.get(c) + sum / n;
      squares[c] = about_mean < 0 ? 0 : about_mean;
    }
  }

  void forward() const {
    const OfChannels shift(args.shift, chunk), scale(args.scale, chunk), offset(args.offset, chunk);
    walk<T, Rows>(args, chunk, [&](int64_t i, int64_t c, auto zero) __attribute__((always_inline)) {
      const auto u = u_of(load(input + i, zero));
      const auto z = (u - shift.at(c, zero)) * scale.at(c, zero) + offset.at(c, zero);
      put(output + i, ActFirst ? z : activated<F>(z, broadcast<decltype(zero)>(slope)), args.stream);
    });
    if (args.stream) stream_fence();
  }

  // d loss / d z of element i, where u - shift is d.
  template <class V>
  INPAINT_FAST_MEMBER V grad_of(int64_t i, int64_t c, V d, const OfChannels& scale, const OfChannels& offset) const {
    const V g = load(grad + i, V{});
    if (ActFirst) return g;
    return times_activation_slope<F>(g, d * scale.at(c, d) + offset.at(c, d), broadcast<V>(slope));
  }

  void sums(double* firsts, double* seconds) const {
    const OfChannels shift(args.shift, chunk), scale(args.scale, chunk), offset(args.offset, chunk);
    const auto term = [&](int64_t i, int64_t c, auto zero) __attribute__((always_inline)) {
      typedef decltype(zero) V;
      const V d = u_of(load(input + i, zero)) - shift.at(c, zero);
      return std::make_pair(Wide<V>(grad_of(i, c, d, scale, offset)), Wide<V>(d));
    };
    add_up<T, Rows, kVectors>(args, chunk, firsts, seconds, term);
  }

  void backward() const {
    const OfChannels shift(args.shift, chunk), scale(args.scale, chunk), offset(args.offset, chunk);
    const OfChannels by_grad(args.by_grad, chunk), by_value(args.by_value, chunk), constant(args.constant, chunk);
    walk<T, Rows>(args, chunk, [&](int64_t i, int64_t c, auto zero) __attribute__((always_inline)) {
      typedef decltype(zero) V;
      const V x = load(input + i, zero), d = u_of(x) - shift.at(c, zero);
      V result = by_grad.at(c, zero) * grad_of(i, c, d, scale, offset);
      if (args.training) result = result + (by_value.at(c, zero) * d + constant.at(c, zero));
      if (ActFirst) result = times_activation_slope<F>(result, x, broadcast<V>(slope));
      put(output + i, result, args.stream);
    });
    if (args.stream) stream_fence();
  }

  void run(NormActStep step, double* firsts, double* seconds) const {
    switch (step) {
      case NormActStep::moments:
        // Of an activation that follows they know nothing: with_order() asks for those without one.
        if constexpr (ActFirst || F == Activation::none) moments(firsts, seconds);
        return;
      case NormActStep::forward:
        return forward();
      case NormActStep::sums:
        return sums(firsts, seconds);
      case NormActStep::backward:
        return backward();
    }
  }
};

template <class T, bool Rows>
void with_order(const NormAct& args, NormActStep step, const NormActChunk& chunk, double* firsts, double* seconds) {
  const bool plain = step == NormActStep::moments && args.order == Order::norm_act;
  with_activation(plain ? Activation::none : args.activation, [&](auto activation) {
    constexpr Activation kActivation = decltype(activation)::value;
    if (args.order == Order::act_norm && kActivation != Activation::none)
      Steps<T, Rows, kActivation, true>{args, chunk}.run(step, firsts, seconds);
    else
      Steps<T, Rows, kActivation, false>{args, chunk}.run(step, firsts, seconds);
  });
}

template <class T>
void with_layout(const NormAct& args, NormActStep step, const NormActChunk& chunk, double* firsts, double* seconds) {
  if (args.rows)
    with_order<T, true>(args, step, chunk, firsts, seconds);
  else
    with_order<T, false>(args, step, chunk, firsts, seconds);
}

}  // namespace

void norm_act_chunk(const NormAct& args, NormActStep step, const NormActChunk& chunk, double* first, double* second) {
  switch (args.kind) {
    case ScalarKind::float64:
      return with_layout<double>(args, step, chunk, first, second);
    case ScalarKind::float16:
      return with_layout<Half>(args, step, chunk, first, second);
    case ScalarKind::bfloat16:
      return with_layout<BFloat16>(args, step, chunk, first, second);
    default:
      return with_layout<float>(args, step, chunk, first, second);
  }
}

}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
