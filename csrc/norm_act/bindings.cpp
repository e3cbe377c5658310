// Checks, allocation and registration of norm_act. Its definition is inpaint_fast/ops/norm_act.py, where the Python
// function has named every wrong argument already; the checks here keep a direct call of torch.ops from crashing.
#include "norm_act/params.h"

#include <cmath>
#include <tuple>
#include <vector>

#include "common/result_memory.h"
#include "common/torch.h"
#ifdef INPAINT_FAST_CUDA
#include "common/cuda_device.h"
#include "norm_act/cuda.h"
#endif

namespace inpaint_fast {
namespace {

// ---- arguments ----

// True when the elements lie one after the other in this order of the dimensions: channels last, or as they come.
bool lies(const Tensor& tensor, bool channels_last) {
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
Tensor dense(const Tensor& tensor) {
  return lies(tensor, false) || lies(tensor, true) ? tensor : torch::stable::contiguous(tensor);
}

// The tensor itself where it has the strides of `like`, otherwise a copy that has.
Tensor dense_like(const Tensor& tensor, const Tensor& like) {
  bool same = true;
  for (int64_t d = 0; d < like.dim(); ++d) same &= tensor.size(d) == 1 || tensor.stride(d) == like.stride(d);
  if (same) return tensor;
  Tensor copy = torch::stable::empty_like(like);
  return torch::stable::copy_(copy, tensor);
}

bool is_float(ScalarKind kind) { return kind != ScalarKind::none && kind != ScalarKind::uint8; }

NormAct prepare(const Tensor& input, bool training, int64_t activation, double slope, bool act_first) {
  NormAct args;
  args.kind = kind_of(input);
  STD_TORCH_CHECK(is_float(args.kind), "input: its dtype is not float32, float64, float16 or bfloat16");
  STD_TORCH_CHECK(input.dim() >= 2, "input: at least 2 dimensions are expected, got ", input.dim());
  STD_TORCH_CHECK(activation >= 0 && activation < kActivations, "activation: 0 to ", kActivations - 1,
                  " is expected, got ", activation);
  args.rows = !lies(input, false) || (lies(input, true) && input.size(0) * input.size(1) == input.numel());
  args.channels = input.size(1);
  args.samples = input.size(0);
  args.pixels = 1;
  for (int64_t d = 2; d < input.dim(); ++d) args.pixels *= input.size(d);
  if (args.rows) args.pixels *= args.samples, args.samples = 1;
  args.input = input.data_ptr();
  args.activation = static_cast<Activation>(activation);
  args.slope = slope;
  args.act_first = act_first;
  args.training = training;
  // Larger than a last-level cache's share of one core: the results would not survive there anyway.
  args.stream = input.numel() * bytes_of(args.kind) > (int64_t{4} << 20);
  return args;
}

void check_of_channels(const Tensor& tensor, const char* name, int64_t channels) {
  STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == channels, name, ": one number for each of ", channels,
                  " channels is expected");
  STD_TORCH_CHECK(is_float(kind_of(tensor)), name, ": its dtype is not float32, float64, float16 or bfloat16");
}

void check_statistics(const NormAct& args, const std::optional<Tensor>& running_mean,
                      const std::optional<Tensor>& running_var, const std::optional<Tensor>& batch_mean,
                      const std::optional<Tensor>& batch_var) {
  STD_TORCH_CHECK(running_mean.has_value() == running_var.has_value(), "running_mean, running_var: both or none");
  STD_TORCH_CHECK(args.training || running_mean, "running_mean: it is needed outside training");
  STD_TORCH_CHECK(batch_mean.has_value() == batch_var.has_value(), "batch_mean, batch_var: both or none");
  STD_TORCH_CHECK(args.training || !batch_mean, "batch_mean: none is expected outside training");
  STD_TORCH_CHECK(!args.training || args.samples * args.pixels != 1,
                  "input: more than 1 value per channel is expected in training");
}

Tensor nothing(const Tensor& like) { return torch::stable::new_empty(like, {0}); }

#ifndef INPAINT_FAST_EMULATION  // which has kernels of the CUDA half alone

// ---- CPU ----

typedef std::vector<double> Numbers;  // one of each channel

// The numbers of a tensor of one number a channel; `otherwise` in all of them where there is none.
Numbers numbers_of(const std::optional<Tensor>& tensor, const char* name, int64_t channels, double otherwise) {
  Numbers numbers(channels, otherwise);
  if (!tensor) return numbers;
  check_of_channels(*tensor, name, channels);
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
  const Tensor made = torch::stable::new_empty(like, {static_cast<int64_t>(numbers.size())},
                                               narrow ? ScalarType::Float : ScalarType::Double);
  const auto write = [&](auto* to) {
    for (size_t c = 0; c < numbers.size(); ++c) to[c] = static_cast<std::remove_pointer_t<decltype(to)>>(numbers[c]);
  };
  narrow ? write(static_cast<float*>(made.data_ptr())) : write(static_cast<double*>(made.data_ptr()));
  return narrow || type == ScalarType::Double ? made : torch::stable::to(made, type);
}

// ---- two passes over the tensor: gather a pair of numbers from every chunk, put them together, then write ----

struct Pairs {
  Numbers first, second;
  int64_t part_stride, channel_stride;
  Pairs(const NormAct& args)
      : first(args.parts() * args.channels),
        second(first.size()),
        part_stride(args.rows ? args.channels : 1),
        channel_stride(args.rows ? 1 : args.parts()) {}
  int64_t at(int64_t part, int64_t channel) const { return part * part_stride + channel * channel_stride; }
};

class Passes {
 public:
  explicit Passes(const NormAct& args)
      : args_(args),
        kernel_(INPAINT_FAST_CPU_KERNEL(norm_act)),
        parts_(args.parts()),
        groups_(args.groups()),
        // Tasks of some ten thousand elements at least.
        grain_(NormAct::ceil_divide(kNormActElements * parts_ * groups_, args.samples * args.channels * args.pixels)) {}

  // gather_step, together(pairs, first channel, last channel) and write_step; either step may be left out.
  // In planes a channel goes through all of it while it is in the cache, where there are channels for every thread.
  template <class Together>
  void run(bool gather, NormActStep gather_step, bool write, NormActStep write_step, const Together& together) {
    Pairs pairs(args_);
    if (!args_.rows && groups_ >= 2 * static_cast<int64_t>(torch::stable::get_num_threads())) {
      torch::stable::parallel_for(0, groups_, NormAct::ceil_divide(grain_, parts_), [&](int64_t begin, int64_t end) {
        for (int64_t channel = begin; channel < end; ++channel) {
          for (int64_t part = 0; gather && part < parts_; ++part) one(gather_step, part, channel, pairs);
          together(pairs, channel, channel + 1);
          for (int64_t part = 0; write && part < parts_; ++part) one(write_step, part, channel, pairs);
        }
      });
      return;
    }
    if (gather) all(gather_step, pairs);
    together(pairs, 0, args_.channels);
    if (write) all(write_step, pairs);
  }

 private:
  void one(NormActStep step, int64_t part, int64_t group, Pairs& pairs) const {
    const NormActChunk chunk = args_.chunk(part, group);
    const int64_t at = pairs.at(part, chunk.channel_begin);
    kernel_(args_, step, chunk, pairs.first.data() + at, pairs.second.data() + at);
  }
  void all(NormActStep step, Pairs& pairs) const {
    torch::stable::parallel_for(0, parts_ * groups_, grain_, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)  // in the order of memory
        args_.rows ? one(step, i / groups_, i % groups_, pairs) : one(step, i % parts_, i / parts_, pairs);
    });
  }

  const NormAct& args_;
  void (*kernel_)(const NormAct&, NormActStep, const NormActChunk&, double*, double*);
  const int64_t parts_, groups_, grain_;
};

// The parts' moments as those of all values (Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for
// computing sample variances, 1979), part after part.
void join_moments(const NormAct& args, const Pairs& pairs, int64_t begin, int64_t end, Numbers& mean,
                  Numbers& squares) {
  double count = 0;
  for (int64_t part = 0; part < args.parts(); ++part) {
    const double more = static_cast<double>(args.chunk(part, 0).count()), share = more / (count + more);
    for (int64_t c = begin; c < end; ++c) {
      const int64_t at = pairs.at(part, c);
      const double difference = pairs.first[at] - mean[c];
      // Without a part before, the first one as it is: 0 times an infinite difference would be NaN.
      mean[c] = count == 0 ? pairs.first[at] : mean[c] + difference * share;
      squares[c] += pairs.second[at] + (count == 0 ? 0 : difference * difference * count * share);
    }
    count += more;
  }
}

void join_sums(const NormAct& args, const Pairs& pairs, int64_t begin, int64_t end, Numbers& first, Numbers& second) {
  for (int64_t part = 0; part < args.parts(); ++part)
    for (int64_t c = begin; c < end; ++c) {
      first[c] += pairs.first[pairs.at(part, c)];
      second[c] += pairs.second[pairs.at(part, c)];
    }
}

// z = scale * (u - shift) + offset of each channel: shift is the mean as the kernel's type can hold it, so that
// u - shift is exact where u is near it, and offset takes the rest.
struct Normalise {
  Numbers shift, scale, offset;
  explicit Normalise(NormAct& args) : shift(args.channels), scale(args.channels), offset(args.channels) {
    args.shift = shift.data(), args.scale = scale.data(), args.offset = offset.data();
  }
  void set(const NormAct& args, int64_t c, double mean, double invstd, double weight, double bias) {
    shift[c] = args.kind == ScalarKind::float64 ? mean : static_cast<float>(mean);
    scale[c] = invstd * weight;
    offset[c] = bias - (mean - shift[c]) * scale[c];
  }
};

// (y, mean, 1 / std, running_mean and running_var after the update); without an update the last two are empty.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> norm_act_cpu(
    const Tensor& given, std::optional<Tensor> running_mean, std::optional<Tensor> running_var,
    std::optional<Tensor> weight, std::optional<Tensor> bias, std::optional<Tensor> batch_mean,
    std::optional<Tensor> batch_var, bool training, double momentum, double eps, int64_t activation, double slope,
    bool act_first) {
  const Tensor input = dense(given);
  NormAct args = prepare(input, training, activation, slope, act_first);
  const int64_t channels = args.channels;
  const double count = static_cast<double>(args.samples * args.pixels);
  check_statistics(args, running_mean, running_var, batch_mean, batch_var);
  const Numbers weights = numbers_of(weight, "weight", channels, 1), biases = numbers_of(bias, "bias", channels, 0);
  Numbers running_means = numbers_of(running_mean, "running_mean", channels, 0);
  Numbers running_vars = numbers_of(running_var, "running_var", channels, 1);
  Numbers mean = numbers_of(batch_mean, "batch_mean", channels, 0), invstd(channels);
  Numbers squares = numbers_of(batch_var, "batch_var", channels, 0);
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
std::tuple<Tensor, Tensor, Tensor> norm_act_backward_cpu(const Tensor& given_grad, const Tensor& given,
                                                         std::optional<Tensor> weight, std::optional<Tensor> bias,
                                                         const Tensor& mean, const Tensor& invstd, bool training,
                                                         int64_t activation, double slope, bool act_first,
                                                         bool want_input, bool want_parameters) {
  const Tensor input = dense(given);
  NormAct args = prepare(input, training, activation, slope, act_first);
  check_same_sizes(given_grad, input, "grad", "input");
  STD_TORCH_CHECK(kind_of(given_grad) == args.kind, "grad: its dtype is not that of input");
  const Tensor grad = dense_like(given_grad, input);
  args.grad = grad.data_ptr();
  const int64_t channels = args.channels;
  const double count = static_cast<double>(args.samples * args.pixels);
  const Numbers weights = numbers_of(weight, "weight", channels, 1), biases = numbers_of(bias, "bias", channels, 0);
  const Numbers means = numbers_of(mean, "mean", channels, 0), invstds = numbers_of(invstd, "invstd", channels, 1);
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

#endif  // INPAINT_FAST_EMULATION
#ifdef INPAINT_FAST_CUDA

// ---- CUDA ----

// What the kernels are told of channels, and the tensors that it lies in until they were launched.
class Channels : public cuda::NormActChannels {
 public:
  Channels(const NormAct& args, const Tensor& input) : input_(input), channels_(args.channels) {}

  cuda::NormActNumbers read(const std::optional<Tensor>& tensor, const char* name) {
    if (!tensor) return {};
    check_of_channels(*tensor, name, channels_);
    check_same_device(*tensor, input_, name, "input");
    return keep(torch::stable::contiguous(*tensor));
  }
  double* read_doubles(const Tensor& tensor, const char* name) {
    const cuda::NormActNumbers numbers = read(tensor, name);
    STD_TORCH_CHECK(numbers.kind == ScalarKind::float64, name, ": its dtype is not float64");
    return static_cast<double*>(numbers.data);
  }
  cuda::NormActNumbers keep(const Tensor& tensor) {
    kept_.push_back(tensor);
    return {tensor.data_ptr(), kind_of(tensor)};
  }
  double* doubles(int64_t count) {
    return static_cast<double*>(keep(torch::stable::new_empty(input_, {count}, ScalarType::Double)).data);
  }

 private:
  const Tensor input_;
  const int64_t channels_;
  std::vector<Tensor> kept_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> norm_act_cuda(
    const Tensor& given, std::optional<Tensor> running_mean, std::optional<Tensor> running_var,
    std::optional<Tensor> weight, std::optional<Tensor> bias, std::optional<Tensor> batch_mean,
    std::optional<Tensor> batch_var, bool training, double momentum, double eps, int64_t activation, double slope,
    bool act_first) {
  const OnDeviceOf device(given);
  const Tensor input = dense(given);
  NormAct args = prepare(input, training, activation, slope, act_first);
  check_statistics(args, running_mean, running_var, batch_mean, batch_var);
  Channels channels(args, input);
  channels.weight = channels.read(weight, "weight");
  channels.bias = channels.read(bias, "bias");
  channels.running_mean = channels.read(running_mean, "running_mean");
  channels.running_var = channels.read(running_var, "running_var");
  channels.momentum = momentum, channels.eps = eps;
  const bool update = training && running_mean, empty = input.numel() == 0;
  // Without a value nothing is updated.
  const auto updated = [&](const std::optional<Tensor>& running) {
    if (!update) return nothing(input);
    return empty ? torch::stable::clone(*running)
                 : torch::stable::new_empty(input, {args.channels}, running->scalar_type());
  };
  const Tensor new_mean = updated(running_mean), new_var = updated(running_var);
  Tensor output = torch::stable::empty_like(input);
  if (empty) {
    const auto zeros = [&] { return torch::stable::new_zeros(input, {args.channels}, ScalarType::Double); };
    return {output, zeros(), zeros(), new_mean, new_var};
  }
  const auto doubles = [&] { return torch::stable::new_empty(input, {args.channels}, ScalarType::Double); };
  const Tensor mean = doubles(), invstd = doubles();
  channels.mean = channels.read_doubles(mean, "mean");
  channels.invstd = channels.read_doubles(invstd, "invstd");
  if (batch_mean) {
    channels.batch_mean = channels.read_doubles(*batch_mean, "batch_mean");
    channels.batch_var = channels.read_doubles(*batch_var, "batch_var");
  } else if (training) {
    channels.partials = channels.doubles(cuda::norm_act_partials(args));
  }
  if (update) channels.new_mean = channels.keep(new_mean), channels.new_var = channels.keep(new_var);
  args.output = output.data_ptr();
  cuda::norm_act(args, channels, device.stream());
  return {output, mean, invstd, new_mean, new_var};
}

std::tuple<Tensor, Tensor, Tensor> norm_act_backward_cuda(const Tensor& given_grad, const Tensor& given,
                                                          std::optional<Tensor> weight, std::optional<Tensor> bias,
                                                          const Tensor& mean, const Tensor& invstd, bool training,
                                                          int64_t activation, double slope, bool act_first,
                                                          bool want_input, bool want_parameters) {
  const OnDeviceOf device(given);
  const Tensor input = dense(given);
  NormAct args = prepare(input, training, activation, slope, act_first);
  check_same_sizes(given_grad, input, "grad", "input");
  check_same_device(given_grad, input, "grad", "input");
  STD_TORCH_CHECK(kind_of(given_grad) == args.kind, "grad: its dtype is not that of input");
  const Tensor grad = dense_like(given_grad, input);
  args.grad = grad.data_ptr();
  Channels channels(args, input);
  channels.weight = channels.read(weight, "weight");
  channels.bias = channels.read(bias, "bias");
  channels.mean = channels.read_doubles(mean, "mean");
  channels.invstd = channels.read_doubles(invstd, "invstd");
  const bool empty = input.numel() == 0;
  const auto of_parameter = [&](const std::optional<Tensor>& parameter) {
    if (!parameter || !want_parameters) return nothing(input);
    const auto type = parameter->scalar_type();
    return empty ? torch::stable::new_zeros(input, {args.channels}, type)
                 : torch::stable::new_empty(input, {args.channels}, type);
  };
  const Tensor grad_weight = of_parameter(weight), grad_bias = of_parameter(bias);
  Tensor grad_input = want_input ? torch::stable::empty_like(input) : nothing(input);
  if (empty) return {grad_input, grad_weight, grad_bias};
  if (want_parameters && weight) channels.grad_weight = channels.keep(grad_weight);
  if (want_parameters && bias) channels.grad_bias = channels.keep(grad_bias);
  channels.partials = channels.doubles(cuda::norm_act_partials(args));
  channels.totals = channels.doubles(2 * args.channels);
  if (want_input) args.output = grad_input.data_ptr();
  cuda::norm_act_backward(args, channels, device.stream());
  return {grad_input, grad_weight, grad_bias};
}

#endif  // INPAINT_FAST_CUDA

}  // namespace
}  // namespace inpaint_fast

#ifndef INPAINT_FAST_EMULATION
STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("norm_act", TORCH_BOX(&inpaint_fast::norm_act_cpu));
  m.impl("norm_act_backward", TORCH_BOX(&inpaint_fast::norm_act_backward_cpu));
}
#endif
#ifdef INPAINT_FAST_CUDA
STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, INPAINT_FAST_CUDA_KEY, m) {
  m.impl(INPAINT_FAST_CUDA_NAME("norm_act"), TORCH_BOX(&inpaint_fast::norm_act_cuda));
  m.impl(INPAINT_FAST_CUDA_NAME("norm_act_backward"), TORCH_BOX(&inpaint_fast::norm_act_backward_cuda));
}
#endif
