// Checks, allocation and registration of norm_act on the CPU. Its definition is inpaint_fast/ops/norm_act.py.
#include <cmath>
#include <tuple>

#include "common/result_memory.h"
#include "norm_act/arguments.h"
#include "norm_act/cpu/passes.h"

namespace inpaint_fast {
namespace {

// ---- one number of each channel ----

// The numbers of a tensor of one number a channel; `otherwise` in all of them where there is none.
Numbers numbers_of(const std::optional<Tensor>& tensor, int64_t channels, double otherwise) {
  Numbers numbers(channels, otherwise);
  if (!tensor) return numbers;
  const auto read = [&](const auto* from, int64_t stride) {
    for (int64_t c = 0; c < channels; ++c) numbers[c] = from[c * stride];
  };
  const auto kind = kind_of(*tensor);
  if (kind == ScalarKind::float32) {
    read(static_cast<const float*>(tensor->data_ptr()), tensor->stride(0));
  } else if (kind == ScalarKind::float64) {
    read(static_cast<const double*>(tensor->data_ptr()), tensor->stride(0));
  } else {
    const Tensor wide = torch::stable::to(*tensor, ScalarType::Double);
    read(static_cast<const double*>(wide.data_ptr()), wide.stride(0));
  }
  return numbers;
}

Tensor tensor_of(const Numbers& numbers, const Tensor& like, ScalarType type) {
  const bool narrow = type == ScalarType::Float;
  const Tensor made =
      new_vector(like, static_cast<int64_t>(numbers.size()), narrow ? ScalarType::Float : ScalarType::Double);
  const auto write = [&](auto* to) {
    for (size_t c = 0; c < numbers.size(); ++c) to[c] = static_cast<std::remove_pointer_t<decltype(to)>>(numbers[c]);
  };
  narrow ? write(static_cast<float*>(made.data_ptr())) : write(static_cast<double*>(made.data_ptr()));
  return narrow || type == ScalarType::Double ? made : torch::stable::to(made, type);
}

// ---- the operators ----

// (y, mean, 1 / std, running_mean and running_var after the update); without an update the last two are empty.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> norm_act(const Tensor& given,                 // [N, C, ...]
                                                            std::optional<Tensor> running_mean,  // [C]
                                                            std::optional<Tensor> running_var,   // [C]
                                                            std::optional<Tensor> weight,        // [C]
                                                            std::optional<Tensor> bias,          // [C]
                                                            std::optional<Tensor> batch_mean,    // [C], float64
                                                            std::optional<Tensor> batch_var,     // [C], float64
                                                            bool training, double momentum, double eps,
                                                            int64_t activation, double slope, int64_t order) {
  NormAct args = settings_of(training, activation, slope, order);
  check_forward(given, running_mean, running_var, weight, bias, batch_mean, batch_var, training);
  const Tensor input = dense(given);
  set_input(args, input);
  const int64_t channels = args.channels;
  const double count = static_cast<double>(args.samples * args.pixels);
  const Numbers weights = numbers_of(weight, channels, 1), biases = numbers_of(bias, channels, 0);
  Numbers running_means = numbers_of(running_mean, channels, 0);
  Numbers running_vars = numbers_of(running_var, channels, 1);
  Numbers mean = numbers_of(batch_mean, channels, 0), invstd(channels);
  Numbers squares = numbers_of(batch_var, channels, 0);
  for (double& square : squares) square *= count;
  Normalise normalise(args);
  Tensor output = empty_result_like(input);
  args.output = output.data_ptr();
  if (input.numel() > 0) {
    const auto together = [&](const Pairs& pairs, int64_t begin, int64_t end) {
      if (training && !batch_mean) join_moments(args, pairs, begin, end, mean, squares);
      for (int64_t c = begin; c < end; ++c) {
        if (!training) mean[c] = running_means[c];
        const double var = training ? squares[c] / count : running_vars[c];
        invstd[c] = 1 / std::sqrt(var + eps);
        normalise.set(args, c, mean[c], invstd[c], weights[c], biases[c]);
        if (training) {
          running_means[c] = momentum * mean[c] + (1 - momentum) * running_means[c];
          running_vars[c] = momentum * (squares[c] / (count - 1)) + (1 - momentum) * running_vars[c];
        }
      }
    };
    Passes(args).run(training && !batch_mean, NormActStep::moments, true, NormActStep::forward, together);
  }
  const bool update = training && running_mean;
  return {output, tensor_of(mean, input, ScalarType::Double), tensor_of(invstd, input, ScalarType::Double),
          update ? tensor_of(running_means, input, running_mean->scalar_type()) : nothing(input),
          update ? tensor_of(running_vars, input, running_var->scalar_type()) : nothing(input)};
}

// Gradients of input, weight and bias; empty where they are not wanted or there is no such parameter.
std::tuple<Tensor, Tensor, Tensor> norm_act_backward(const Tensor& given_grad,      // [N, C, ...]
                                                     const Tensor& given,           // [N, C, ...]
                                                     std::optional<Tensor> weight,  // [C]
                                                     std::optional<Tensor> bias,    // [C]
                                                     const Tensor& mean,            // [C], float64
                                                     const Tensor& invstd,          // [C], float64
                                                     bool training, int64_t activation, double slope, int64_t order,
                                                     bool want_input, bool want_parameters) {
  NormAct args = settings_of(training, activation, slope, order);
  check_backward(given_grad, given, weight, bias, mean, invstd);
  const Tensor input = dense(given), grad = dense_like(given_grad, input);
  set_input(args, input);
  args.grad = grad.data_ptr();
  const int64_t channels = args.channels;
  const double count = static_cast<double>(args.samples * args.pixels);
  const Numbers weights = numbers_of(weight, channels, 1), biases = numbers_of(bias, channels, 0);
  const Numbers means = numbers_of(mean, channels, 0), invstds = numbers_of(invstd, channels, 1);
  Normalise normalise(args);
  Numbers by_grad(channels), by_value(channels), constant(channels), grad_weight(channels), grad_bias(channels);
  args.by_grad = by_grad.data(), args.by_value = by_value.data(), args.constant = constant.data();
  for (int64_t c = 0; c < channels; ++c) normalise.set(args, c, means[c], invstds[c], weights[c], biases[c]);
  Tensor grad_input = want_input ? empty_result_like(input) : nothing(input);
  args.output = grad_input.data_ptr();
  if (input.numel() > 0) {
    const bool sums = want_parameters || (training && want_input);
    const auto together = [&](const Pairs& pairs, int64_t begin, int64_t end) {
      if (sums) join_sums(args, pairs, begin, end, grad_bias, grad_weight);
      for (int64_t c = begin; c < end; ++c) {
        const double rest = means[c] - normalise.shift[c], scale = normalise.scale[c];
        grad_weight[c] = invstds[c] * (grad_weight[c] - rest * grad_bias[c]);  // the sum of g * (u - mean) / std
        by_grad[c] = scale;
        by_value[c] = training ? -scale * invstds[c] * grad_weight[c] / count : 0;
        constant[c] = training ? -scale * grad_bias[c] / count - by_value[c] * rest : 0;
      }
    };
    Passes(args).run(sums, NormActStep::sums, want_input, NormActStep::backward, together);
  }
  return {grad_input, want_parameters && weight ? tensor_of(grad_weight, input, weight->scalar_type()) : nothing(input),
          want_parameters && bias ? tensor_of(grad_bias, input, bias->scalar_type()) : nothing(input)};
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("norm_act", TORCH_BOX(&inpaint_fast::norm_act));
  m.impl("norm_act_backward", TORCH_BOX(&inpaint_fast::norm_act_backward));
}
