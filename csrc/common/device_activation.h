// The activations on the GPU, in float32; those of the CPU are in activation.h, whose vectors and polynomials the GPU's
// own exponentials make superfluous. NaN stays NaN.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "common/activation_kind.h"

namespace inpaint_fast {
namespace device {

// Calls run(f) with the function that `activation` is; all threads choose the same. slope: leaky_relu's negative slope,
// elu's alpha.
template <class Run>
__device__ __forceinline__ void with_activation(Activation activation, float slope, Run run) {
  switch (activation) {
    case Activation::relu:
      return run([](float x) { return x < 0 ? 0.0f : x; });
    case Activation::leaky_relu:
      return run([slope](float x) { return x > 0 ? x : x * slope; });
    case Activation::elu:
      return run([slope](float x) { return x > 0 ? x : slope * expm1f(x); });
    case Activation::sigmoid:
      return run([](float x) { return 1.0f / (1.0f + expf(-x)); });
    case Activation::tanh:
      return run([](float x) { return tanhf(x); });
    default:
      return run([](float x) { return x; });
  }
}

}  // namespace device
}  // namespace inpaint_fast
