// The activations and their derivatives in CUDA kernels: what common/activation.h has for the CPU. A is float or
// double.
//
// `slope` is leaky_relu's negative slope and elu's alpha. NaN stays NaN, as in torch.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "common/words.h"

namespace inpaint_fast {
namespace device {

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float exponential_minus_1(float x) { return expm1f(x); }
__device__ __forceinline__ double exponential_minus_1(double x) { return expm1(x); }

template <Activation F, class A>
__device__ __forceinline__ A activated(A x, A slope) {
  if constexpr (F == Activation::relu) return x < 0 ? A(0) : x;
  if constexpr (F == Activation::leaky_relu) return x > 0 ? x : x * slope;
  if constexpr (F == Activation::elu) return x > 0 ? x : slope * exponential_minus_1(x);
  if constexpr (F == Activation::sigmoid) {
    const A e = exponential(x < 0 ? x : -x);  // never overflows
    return (x < 0 ? e : A(1)) / (1 + e);
  }
  if constexpr (F == Activation::tanh) {
    const A e = exponential_minus_1(2 * (x < 0 ? x : -x));
    const A magnitude = e / (2 + e);  // negative
    return x < 0 ? magnitude : -magnitude;
  }
  return x;
}

// g * d activated(x) / dx, from x alone; at 0 what torch takes it for. relu's zero is one whatever g is.
template <Activation F, class A>
__device__ __forceinline__ A times_activation_slope(A g, A x, A slope) {
  if constexpr (F == Activation::relu) return x <= 0 ? A(0) : g;
  if constexpr (F == Activation::leaky_relu) return x > 0 ? g : g * slope;
  if constexpr (F == Activation::elu) return x > 0 ? g : g * slope * exponential(x);
  if constexpr (F == Activation::sigmoid) {
    const A e = exponential(x < 0 ? x : -x), sum = 1 + e;
    return g * (e / (sum * sum));
  }
  if constexpr (F == Activation::tanh) {
    const A e = exponential(2 * (x < 0 ? x : -x)), sum = 1 + e;
    return g * (4 * e / (sum * sum));
  }
  return g;
}

template <Activation F>
struct OfActivation {
  static constexpr Activation value = F;
};

// Calls run(OfActivation<F>{}) for the F that `activation` is: one branch for as many elements as run takes.
template <class Run>
__device__ __forceinline__ void with_activation(Activation activation, Run run) {
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

}  // namespace device
}  // namespace inpaint_fast
