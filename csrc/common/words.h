// The words that arguments are numbers of, in the order of the tuples in inpaint_fast/_words.py.
#pragma once

namespace inpaint_fast {

enum class Activation : int { none, relu, leaky_relu, elu, sigmoid, tanh };
constexpr int kActivations = 6;

// What comes first: the normalisation (scale and shift) or the activation.
enum class Order : int { norm_act, act_norm };
constexpr int kOrders = 2;

}  // namespace inpaint_fast
