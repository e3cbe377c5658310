// The activations that operators fuse, by names of our own; the order is that of ACTIVATIONS in ops/_activations.py.
#pragma once

namespace inpaint_fast {

enum class Activation : int { none, relu, leaky_relu, elu, sigmoid, tanh };
constexpr int kActivations = 6;

}  // namespace inpaint_fast
