// Checks, allocation and registration of norm_act on CUDA. Its definition is inpaint_fast/ops/norm_act.py.
#include <tuple>
#include <vector>

#include "common/cuda_device.h"
#include "norm_act/arguments.h"
#include "norm_act/cuda/launchers.h"

namespace inpaint_fast {
namespace {

// What the kernels are told of channels, and the tensors that it lies in until they were launched.
class Channels : public cuda::NormActChannels {
 public:
  explicit Channels(const Tensor& input) : input_(input) {}

  cuda::NormActNumbers read(const std::optional<Tensor>& tensor) {
    return tensor ? keep(torch::stable::contiguous(*tensor)) : cuda::NormActNumbers{};
  }
  double* read_doubles(const Tensor& tensor) { return static_cast<double*>(read(tensor).data); }
  cuda::NormActNumbers keep(const Tensor& tensor) {
    kept_.push_back(tensor);
    return {tensor.data_ptr(), kind_of(tensor)};
  }
  double* doubles(int64_t count) {
    return static_cast<double*>(keep(new_vector(input_, count, ScalarType::Double)).data);
  }

 private:
  const Tensor input_;
  std::vector<Tensor> kept_;
};

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
  const OnDeviceOf device(given);
  const Tensor input = dense(given);
  set_input(args, input);
  Channels channels(input);
  channels.weight = channels.read(weight);
  channels.bias = channels.read(bias);
  channels.running_mean = channels.read(running_mean);
  channels.running_var = channels.read(running_var);
  channels.momentum = momentum, channels.eps = eps;
  const bool update = training && running_mean, empty = input.numel() == 0;
  // Without a value nothing is updated.
  const auto updated = [&](const std::optional<Tensor>& running) {
    if (!update) return nothing(input);
    return empty ? torch::stable::clone(*running) : new_vector(input, args.channels, running->scalar_type());
  };
  const Tensor new_mean = updated(running_mean), new_var = updated(running_var);
  Tensor output = new_like(input);
  if (empty) {
    const auto zeros = [&] { return torch::stable::new_zeros(input, {args.channels}, ScalarType::Double); };
    return {output, zeros(), zeros(), new_mean, new_var};
  }
  const auto doubles = [&] { return new_vector(input, args.channels, ScalarType::Double); };
  const Tensor mean = doubles(), invstd = doubles();
  channels.mean = channels.read_doubles(mean);
  channels.invstd = channels.read_doubles(invstd);
  if (batch_mean) {
    channels.batch_mean = channels.read_doubles(*batch_mean);
    channels.batch_var = channels.read_doubles(*batch_var);
  } else if (training) {
    channels.partials = channels.doubles(cuda::norm_act_partials(args));
  }
  if (update) channels.new_mean = channels.keep(new_mean), channels.new_var = channels.keep(new_var);
  args.output = output.data_ptr();
  cuda::norm_act(args, channels, device.stream());
  return {output, mean, invstd, new_mean, new_var};
}

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
  const OnDeviceOf device(given);
  const Tensor input = dense(given), grad = dense_like(given_grad, input);
  set_input(args, input);
  args.grad = grad.data_ptr();
  Channels channels(input);
  channels.weight = channels.read(weight);
  channels.bias = channels.read(bias);
  channels.mean = channels.read_doubles(mean);
  channels.invstd = channels.read_doubles(invstd);
  const bool empty = input.numel() == 0;
  const auto of_parameter = [&](const std::optional<Tensor>& parameter) {
    if (!parameter || !want_parameters) return nothing(input);
    const auto type = parameter->scalar_type();
    return empty ? torch::stable::new_zeros(input, {args.channels}, type) : new_vector(input, args.channels, type);
  };
  const Tensor grad_weight = of_parameter(weight), grad_bias = of_parameter(bias);
  Tensor grad_input = want_input ? new_like(input) : nothing(input);
  if (empty) return {grad_input, grad_weight, grad_bias};
  if (want_parameters && weight) channels.grad_weight = channels.keep(grad_weight);
  if (want_parameters && bias) channels.grad_bias = channels.keep(grad_bias);
  channels.partials = channels.doubles(cuda::norm_act_partials(args));
  channels.totals = channels.doubles(2 * args.channels);
  if (want_input) args.output = grad_input.data_ptr();
  cuda::norm_act_backward(args, channels, device.stream());
  return {grad_input, grad_weight, grad_bias};
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, INPAINT_FAST_CUDA_KEY, m) {
  m.impl(INPAINT_FAST_CUDA_NAME("norm_act"), TORCH_BOX(&inpaint_fast::norm_act));
  m.impl(INPAINT_FAST_CUDA_NAME("norm_act_forward"), TORCH_BOX(&inpaint_fast::norm_act));
  m.impl(INPAINT_FAST_CUDA_NAME("norm_act_backward"), TORCH_BOX(&inpaint_fast::norm_act_backward));
}
