// Checks, allocation and registration of masked_l2. Its definition is inpaint_fast/ops/masked_l2.py, where the Python
// function has named every wrong argument already; the checks here keep a direct call of torch.ops from crashing.
#include <memory>
#include <tuple>

#include "common/result_memory.h"
#include "common/torch.h"
#include "masked_l2/params.h"
#ifdef INPAINT_FAST_CUDA
#include "common/cuda_device.h"
#include "masked_l2/cuda.h"
#endif

namespace inpaint_fast {
namespace {

enum Reduction : int64_t { kSum = 0, kMean = 1, kMaskMean = 2 };

MaskedL2 prepare(const Tensor& pred, const Tensor& target, const std::optional<Tensor>& mask) {
  STD_TORCH_CHECK(pred.dim() <= kMaxDims, "pred: at most ", kMaxDims, " dimensions, got ", pred.dim());
  MaskedL2 args;
  args.kind = kind_of(pred);
  STD_TORCH_CHECK(args.kind != ScalarKind::none && args.kind != ScalarKind::uint8,
                  "pred: its dtype is not float32, float64, float16 or bfloat16");
  STD_TORCH_CHECK(kind_of(target) == args.kind, "target: its dtype is not that of pred");
  check_same_sizes(target, pred, "target");
  for (int64_t d = 0; d < pred.dim(); ++d) args.walk.add_dim(pred.size(d));
  args.walk.operands = kMaskedL2Operands;
  // An operand that is not there walks as pred does, so that it keeps no dimensions from merging.
  for (int operand = 0; operand < kMaskedL2Operands; ++operand) set_strides(args.walk, operand, pred);
  set_strides(args.walk, kTarget, target);
  args.pred = pred.data_ptr();
  args.target = target.data_ptr();
  if (mask) {
    check_same_sizes(*mask, pred, "mask (expanded)");
    args.mask_kind = kind_of(*mask);
    STD_TORCH_CHECK(args.mask_kind == ScalarKind::uint8 || args.mask_kind == args.kind ||
                        (args.mask_kind == ScalarKind::float32 && args.kind != ScalarKind::float64),
                    "mask: its dtype is not bool, uint8, float32 or that of pred");
    set_strides(args.walk, kMask, *mask);
    args.mask = mask->data_ptr();
  }
  return args;
}

void set_output(MaskedL2& args, int operand, const Tensor& tensor) {
  set_strides(args.walk, operand, tensor);
  (operand == kGrad ? args.grad : args.composite) = tensor.data_ptr();
}

// The mask's own elements as a walk; every broadcast dimension only repeats their sum `times` times.
struct MaskWalk {
  Strided walk;
  double times = 1;
  explicit MaskWalk(const Tensor& mask) {
    walk.operands = 1;
    for (int64_t d = 0; d < mask.dim(); ++d) {
      if (mask.stride(d) == 0) {
        times *= static_cast<double>(mask.size(d));
      } else {
        walk.strides[0][walk.dims] = mask.stride(d);
        walk.add_dim(mask.size(d));
      }
    }
    walk.collapse();
  }
};

void check_reduction(int64_t reduction) {
  STD_TORCH_CHECK(reduction >= kSum && reduction <= kMaskMean, "reduction: 0, 1 or 2 is expected, got ", reduction);
}

// A mask with nothing to fill gives no loss and no gradient under "mask_mean"; an empty mean is NaN, as in PyTorch.
double scale_of(double weight, double denominator, int64_t reduction) {
  return reduction == kMaskMean && denominator == 0 ? 0 : weight / denominator;
}

Tensor new_loss(const Tensor& pred) {
  const bool wide = pred.scalar_type() == ScalarType::Double;
  return torch::stable::new_empty(pred, {}, wide ? ScalarType::Double : ScalarType::Float);
}

#ifndef INPAINT_FAST_EMULATION  // which has kernels of the CUDA half alone

// ---- CPU ----

// Sums task(begin, end) over fixed chunks of [0, numel), in chunk order whatever the number of threads.
template <class Task>
double sum_chunks(int64_t numel, const Task& task) {
  const int64_t chunks = (numel + kMaskedL2Chunk - 1) / kMaskedL2Chunk;
  std::unique_ptr<double[]> partial(new double[chunks > 0 ? chunks : 1]);
  torch::stable::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * kMaskedL2Chunk;
      partial[chunk] = task(begin, begin + kMaskedL2Chunk < numel ? begin + kMaskedL2Chunk : numel);
    }
  });
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk];
  return sum;
}

double denominator_cpu(const MaskedL2& args, const std::optional<Tensor>& mask, int64_t reduction) {
  check_reduction(reduction);
  if (reduction == kSum) return 1;
  if (reduction == kMean || !mask) return static_cast<double>(args.walk.numel);
  const MaskWalk mask_walk(*mask);
  const auto kernel = INPAINT_FAST_CPU_KERNEL(mask_sum);
  return mask_walk.times * sum_chunks(mask_walk.walk.numel, [&](int64_t begin, int64_t end) {
           return kernel(mask_walk.walk, args.mask, args.mask_kind, begin, end);
         });
}

// Runs the kernel and returns the loss.
double run_cpu(MaskedL2& args, const std::optional<Tensor>& mask, double weight, int64_t reduction, double grad_loss) {
  const double scale = scale_of(weight, denominator_cpu(args, mask, reduction), reduction);
  args.factor = 2 * scale * grad_loss;
  args.walk.collapse();
  args.arrange();
  // Larger than a last-level cache's share of one core: the results would not survive there anyway.
  args.stream = args.grad && args.walk.numel * bytes_of(args.kind) > (int64_t{4} << 20);
  const auto kernel = INPAINT_FAST_CPU_KERNEL(masked_l2);
  const double sum = sum_chunks(args.walk.numel, [&](int64_t begin, int64_t end) { return kernel(args, begin, end); });
  return scale * sum;
}

Tensor loss_tensor(const Tensor& pred, double value) {
  Tensor loss = new_loss(pred);
  if (loss.scalar_type() == ScalarType::Double)
    *static_cast<double*>(loss.data_ptr()) = value;
  else
    *static_cast<float*>(loss.data_ptr()) = static_cast<float>(value);
  return loss;
}

std::tuple<Tensor, Tensor> masked_l2_cpu(const Tensor& pred, const Tensor& target, std::optional<Tensor> mask,
                                         double weight, int64_t reduction, bool want_grad) {
  MaskedL2 args = prepare(pred, target, mask);
  Tensor grad = want_grad ? empty_result_like(pred) : torch::stable::new_empty(pred, {0});
  if (want_grad) set_output(args, kGrad, grad);
  Tensor loss = loss_tensor(pred, run_cpu(args, mask, weight, reduction, 1));
  return {loss, grad};
}

std::tuple<Tensor, Tensor, Tensor> masked_l2_composite_cpu(const Tensor& pred, const Tensor& image, const Tensor& mask,
                                                           double weight, int64_t reduction, bool want_grad) {
  MaskedL2 args = prepare(pred, image, mask);
  Tensor grad = want_grad ? empty_result_like(pred) : torch::stable::new_empty(pred, {0});
  Tensor composite = empty_result_like(pred);
  if (want_grad) set_output(args, kGrad, grad);
  set_output(args, kComposite, composite);
  Tensor loss = loss_tensor(pred, run_cpu(args, mask, weight, reduction, 1));
  return {loss, composite, grad};
}

double scalar_cpu(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.numel() == 1, name, ": one element is expected, got ", tensor.numel());
  if (kind_of(tensor) == ScalarKind::float64) return *static_cast<const double*>(tensor.data_ptr());
  STD_TORCH_CHECK(kind_of(tensor) == ScalarKind::float32, name, ": its dtype is not float32 or float64");
  return *static_cast<const float*>(tensor.data_ptr());
}

Tensor masked_l2_backward_cpu(const Tensor& grad_loss, const Tensor& pred, const Tensor& target,
                              std::optional<Tensor> mask, double weight, int64_t reduction) {
  MaskedL2 args = prepare(pred, target, mask);
  Tensor grad = empty_result_like(pred);
  set_output(args, kGrad, grad);
  run_cpu(args, mask, weight, reduction, scalar_cpu(grad_loss, "grad_loss"));
  return grad;
}

// The gradient that the forward pass left ready, times the gradient of the loss: nothing to do when that is 1.
void masked_l2_scale_cpu(Tensor grad, const Tensor& scale) {
  const double value = scalar_cpu(scale, "scale");
  if (value == 1) return;
  const auto kernel = INPAINT_FAST_CPU_KERNEL(scale_in_place);
  const auto kind = kind_of(grad);
  void* data = grad.data_ptr();
  torch::stable::parallel_for(0, grad.numel(), kMaskedL2Chunk,
                              [&](int64_t begin, int64_t end) { kernel(data, kind, value, begin, end); });
}

#endif  // INPAINT_FAST_EMULATION
#ifdef INPAINT_FAST_CUDA

// ---- CUDA ----

void check_scalar(const Tensor& tensor, const Tensor& like, const char* name) {
  check_same_device(tensor, like, name);
  STD_TORCH_CHECK(tensor.numel() == 1, name, ": one element is expected, got ", tensor.numel());
  STD_TORCH_CHECK(kind_of(tensor) == ScalarKind::float32 || kind_of(tensor) == ScalarKind::float64, name,
                  ": its dtype is not float32 or float64");
}

// Runs the kernels; nothing waits for them. loss, grad_loss: null where there is none.
void run_cuda(MaskedL2& args, const Tensor& pred, const Tensor& target, const std::optional<Tensor>& mask,
              double weight, int64_t reduction, const Tensor* grad_loss, const Tensor* loss, void* stream) {
  check_reduction(reduction);
  check_same_device(target, pred, "target");
  if (mask) check_same_device(*mask, pred, "mask");
  cuda::MaskedL2Scale scale;
  if (grad_loss) {
    check_scalar(*grad_loss, pred, "grad_loss");
    scale.grad_loss = grad_loss->data_ptr();
    scale.grad_loss_kind = kind_of(*grad_loss);
  }
  // Partial sums and their tags, then the mask's sum. The loss takes over what the mask's sum is done with.
  constexpr int64_t kBlocks = cuda::kMaskedL2MaxBlocks;
  Tensor workspace = torch::stable::new_empty(pred, {2 * kBlocks + 1}, ScalarType::Double);
  double* const doubles = static_cast<double*>(workspace.data_ptr());
  GridSumScratch scratch{doubles, reinterpret_cast<uint64_t*>(doubles + kBlocks), next_tag()};
  if (reduction == kMaskMean && mask) {
    const MaskWalk own(*mask);
    double* const sum = doubles + 2 * kBlocks;
    cuda::mask_sum(own.walk, args.mask, args.mask_kind, own.times, scratch, sum, stream);
    scale.weight = weight;
    scale.denominator = sum;
    scratch.tag = next_tag();
  } else {
    scale.weight = scale_of(weight, reduction == kSum ? 1 : static_cast<double>(args.walk.numel), reduction);
  }
  args.walk.collapse();
  if (!loss) scratch = {};
  cuda::masked_l2(args, scale, scratch, {loss ? loss->data_ptr() : nullptr, args.kind == ScalarKind::float64}, stream);
}

std::tuple<Tensor, Tensor> masked_l2_cuda(const Tensor& pred, const Tensor& target, std::optional<Tensor> mask,
                                          double weight, int64_t reduction, bool want_grad) {
  const OnDeviceOf device(pred);
  MaskedL2 args = prepare(pred, target, mask);
  Tensor loss = new_loss(pred);
  Tensor grad = want_grad ? torch::stable::empty_like(pred) : torch::stable::new_empty(pred, {0});
  if (want_grad) set_output(args, kGrad, grad);
  run_cuda(args, pred, target, mask, weight, reduction, nullptr, &loss, device.stream());
  return {loss, grad};
}

std::tuple<Tensor, Tensor, Tensor> masked_l2_composite_cuda(const Tensor& pred, const Tensor& image, const Tensor& mask,
                                                            double weight, int64_t reduction, bool want_grad) {
  const OnDeviceOf device(pred);
  MaskedL2 args = prepare(pred, image, mask);
  Tensor loss = new_loss(pred);
  Tensor grad = want_grad ? torch::stable::empty_like(pred) : torch::stable::new_empty(pred, {0});
  Tensor composite = torch::stable::empty_like(pred);
  if (want_grad) set_output(args, kGrad, grad);
  set_output(args, kComposite, composite);
  run_cuda(args, pred, image, mask, weight, reduction, nullptr, &loss, device.stream());
  return {loss, composite, grad};
}

Tensor masked_l2_backward_cuda(const Tensor& grad_loss, const Tensor& pred, const Tensor& target,
                               std::optional<Tensor> mask, double weight, int64_t reduction) {
  const OnDeviceOf device(pred);
  MaskedL2 args = prepare(pred, target, mask);
  Tensor grad = torch::stable::empty_like(pred);
  set_output(args, kGrad, grad);
  run_cuda(args, pred, target, mask, weight, reduction, &grad_loss, nullptr, device.stream());
  return grad;
}

void masked_l2_scale_cuda(Tensor grad, const Tensor& scale) {
  const OnDeviceOf device(grad);
  check_scalar(scale, grad, "scale");
  cuda::scale_in_place(grad.data_ptr(), kind_of(grad), scale.data_ptr(), kind_of(scale), grad.numel(), device.stream());
}

#endif  // INPAINT_FAST_CUDA

}  // namespace
}  // namespace inpaint_fast

#ifndef INPAINT_FAST_EMULATION
STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  m.impl("masked_l2", TORCH_BOX(&inpaint_fast::masked_l2_cpu));
  m.impl("masked_l2_composite", TORCH_BOX(&inpaint_fast::masked_l2_composite_cpu));
  m.impl("masked_l2_backward", TORCH_BOX(&inpaint_fast::masked_l2_backward_cpu));
  m.impl("masked_l2_scale_", TORCH_BOX(&inpaint_fast::masked_l2_scale_cpu));
}
#endif
#ifdef INPAINT_FAST_CUDA
STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, INPAINT_FAST_CUDA_KEY, m) {
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2"), TORCH_BOX(&inpaint_fast::masked_l2_cuda));
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2_composite"), TORCH_BOX(&inpaint_fast::masked_l2_composite_cuda));
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2_backward"), TORCH_BOX(&inpaint_fast::masked_l2_backward_cuda));
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2_scale_"), TORCH_BOX(&inpaint_fast::masked_l2_scale_cuda));
}
#endif
