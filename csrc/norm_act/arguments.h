// The arguments of norm_act's operators as params.h has them, every one of them checked (common/checks.h).
#pragma once

#include "common/checks.h"
#include "norm_act/params.h"

namespace inpaint_fast {

// ---- memory ----

// True when the elements lie one after the other in this order of the dimensions: channels last, or as they come.
inline bool lies(const Tensor& tensor, bool channels_last) {
  int64_t expected = 1;
  const auto is_next = [&](int64_t d) {
    const bool fits = tensor.size(d) == 1 || tensor.stride(d) == expected;
    expected *= tensor.size(d);
    return fits;
  };
  if (tensor.numel() == 0) return true;
  if (channels_last && !is_next(1)) return false;
  for (int64_t d = tensor.dim() - 1; d >= 0; --d)
    if (!(channels_last && d == 1) && !is_next(d)) return false;
  return true;
}

// The tensor itself where its elements lie in planes or rows, otherwise a contiguous copy.
inline Tensor dense(const Tensor& tensor) {
  return lies(tensor, false) || lies(tensor, true) ? tensor : torch::stable::contiguous(tensor);
}

// The tensor itself where it has the strides of `like`, otherwise a copy that has.
inline Tensor dense_like(const Tensor& tensor, const Tensor& like) {
  bool same = true;
  for (int64_t d = 0; d < like.dim(); ++d) same &= tensor.size(d) == 1 || tensor.stride(d) == like.stride(d);
  if (same) return tensor;
  Tensor copy = new_like(like);
  return torch::stable::copy_(copy, tensor);
}

// ---- checks ----

inline void check_of_channels(const std::optional<Tensor>& tensor, const Tensor& input, const char* name) {
  if (!tensor) return;
  STD_TORCH_CHECK(tensor->dim() == 1 && tensor->size(0) == input.size(1), name, ": one number for each of ",
                  input.size(1), " channels is expected");
  check_float(*tensor, name);
  check_same_device(*tensor, input, name, "input");
}

inline void check_doubles(const Tensor& tensor, const Tensor& input, const char* name) {
  check_of_channels(tensor, input, name);
  STD_TORCH_CHECK(kind_of(tensor) == ScalarKind::float64, name, ": its dtype is not float64");
}

// ---- the arguments; those of one call are checked before the first of its tensors is copied ----

inline void check_input(const Tensor& input) {
  STD_TORCH_CHECK(input.dim() >= 2, "input: at least 2 dimensions are expected, got ", input.dim());
  check_float(input, "input");
}

// What does not depend on memory.
inline NormAct settings_of(bool training, int64_t activation, double slope, int64_t order) {
  NormAct args;
  args.activation = activation_of(activation);
  args.slope = slope;
  args.order = order_of(order);
  args.training = training;
  return args;
}

inline int64_t values_of_channel(const Tensor& input) {
  int64_t values = input.size(0);
  for (int64_t d = 2; d < input.dim(); ++d) values = saturating_product(values, input.size(d));
  return values;
}

// input: as dense() gives it.
inline void set_input(NormAct& args, const Tensor& input) {
  args.kind = kind_of(input);
  args.rows =
      !lies(input, false) || (lies(input, true) && saturating_product(input.size(0), input.size(1)) == input.numel());
  args.channels = input.size(1);
  const int64_t values = values_of_channel(input);
  args.samples = args.rows ? 1 : input.size(0);
  args.pixels = args.rows || values == 0 ? values : values / args.samples;
  args.input = input.data_ptr();
  // Larger than a last-level cache's share of one core: the results would not survive there anyway.
  args.stream = input.numel() * bytes_of(args.kind) > (int64_t{4} << 20);
}

inline void check_forward(const Tensor& input, const std::optional<Tensor>& running_mean,
                          const std::optional<Tensor>& running_var, const std::optional<Tensor>& weight,
                          const std::optional<Tensor>& bias, const std::optional<Tensor>& batch_mean,
                          const std::optional<Tensor>& batch_var, bool training) {
  check_input(input);
  check_of_channels(running_mean, input, "running_mean");
  check_of_channels(running_var, input, "running_var");
  check_of_channels(weight, input, "weight");
  check_of_channels(bias, input, "bias");
  STD_TORCH_CHECK(running_mean.has_value() == running_var.has_value(), "running_mean, running_var: both or none");
  STD_TORCH_CHECK(training || running_mean, "running_mean: it is needed outside training");
  STD_TORCH_CHECK(batch_mean.has_value() == batch_var.has_value(), "batch_mean, batch_var: both or none");
  STD_TORCH_CHECK(training || !batch_mean, "batch_mean: none is expected outside training");
  if (batch_mean) check_doubles(*batch_mean, input, "batch_mean"), check_doubles(*batch_var, input, "batch_var");
  STD_TORCH_CHECK(!training || values_of_channel(input) != 1,
                  "input: more than 1 value per channel is expected in training");
}

inline void check_backward(const Tensor& grad, const Tensor& input, const std::optional<Tensor>& weight,
                           const std::optional<Tensor>& bias, const Tensor& mean, const Tensor& invstd) {
  check_input(input);
  check_same_sizes(grad, input, "grad", "input");
  check_same_kind(grad, input, "grad", "input");
  check_same_device(grad, input, "grad", "input");
  check_of_channels(weight, input, "weight");
  check_of_channels(bias, input, "bias");
  check_doubles(mean, input, "mean"), check_doubles(invstd, input, "invstd");
}

inline Tensor nothing(const Tensor& like) { return new_vector(like, 0); }

}  // namespace inpaint_fast
