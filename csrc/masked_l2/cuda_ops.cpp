// Checks, allocation and registration of masked_l2 on CUDA. Its definition is inpaint_fast/ops/masked_l2.py.
#include <tuple>

#include "common/cuda_device.h"
#include "masked_l2/arguments.h"
#include "masked_l2/cuda/launchers.h"

namespace inpaint_fast {
namespace {

// Runs the kernels; nothing waits for them, everything has been checked. loss, grad_loss: null where there is none.
void run(MaskedL2& args, const Tensor& pred, const std::optional<Tensor>& mask, double weight, Reduction reduction,
         const Tensor* grad_loss, const Tensor* loss, void* stream) {
  cuda::MaskedL2Scale scale;
  if (grad_loss) {
    scale.grad_loss = grad_loss->data_ptr();
    scale.grad_loss_kind = kind_of(*grad_loss);
  }
  // Partial sums and their tags, then the mask's sum. The loss takes over what the mask's sum is done with.
  constexpr int64_t kBlocks = cuda::kMaskedL2MaxBlocks;
  Tensor workspace = new_vector(pred, 2 * kBlocks + 1, ScalarType::Double);
  double* const doubles = static_cast<double*>(workspace.data_ptr());
  GridSumScratch scratch{doubles, reinterpret_cast<uint64_t*>(doubles + kBlocks), next_tag()};
  if (reduction == Reduction::mask_mean && mask) {
    const MaskWalk own(*mask, args.walk);
    double* const sum = doubles + 2 * kBlocks;
    cuda::mask_sum(own.walk, args.mask, args.mask_kind, own.times, scratch, sum, stream);
    scale.weight = weight;
    scale.denominator = sum;
    scratch.tag = next_tag();
  } else {
    scale.weight = scale_of(weight, reduction == Reduction::sum ? 1 : static_cast<double>(args.walk.numel), reduction);
  }
  args.walk.collapse();
  if (!loss) scratch = {};
  cuda::masked_l2(args, scale, scratch, {loss ? loss->data_ptr() : nullptr, args.kind == ScalarKind::float64}, stream);
}

// Loss, gradient (empty where it is not wanted).
std::tuple<Tensor, Tensor> masked_l2(const Tensor& pred,          // 5 dimensions at most
                                     const Tensor& target,        // as pred
                                     std::optional<Tensor> mask,  // as pred, or 1 in a dimension
                                     double weight, int64_t reduction, bool want_grad) {
  const Reduction how = reduction_of(reduction);
  MaskedL2 args = arguments_of(pred, target, mask);
  const OnDeviceOf device(pred);
  Tensor loss = new_loss(pred);
  Tensor grad = want_grad ? new_like(pred) : new_vector(pred, 0);
  if (want_grad) set_output(args, kGrad, grad);
  run(args, pred, mask, weight, how, nullptr, &loss, device.stream());
  return {loss, grad};
}

// Loss, composite, gradient (empty where it is not wanted).
std::tuple<Tensor, Tensor, Tensor> masked_l2_composite(const Tensor& pred,   // 5 dimensions at most
                                                       const Tensor& image,  // as pred
                                                       const Tensor& mask,   // as pred, or 1 in a dimension
                                                       double weight, int64_t reduction, bool want_grad) {
  const Reduction how = reduction_of(reduction);
  MaskedL2 args = arguments_of(pred, image, mask);
  const OnDeviceOf device(pred);
  Tensor loss = new_loss(pred);
  Tensor grad = want_grad ? new_like(pred) : new_vector(pred, 0);
  Tensor composite = new_like(pred);
  if (want_grad) set_output(args, kGrad, grad);
  set_output(args, kComposite, composite);
  run(args, pred, mask, weight, how, nullptr, &loss, device.stream());
  return {loss, composite, grad};
}

Tensor masked_l2_backward(const Tensor& grad_loss,     // one number
                          const Tensor& pred,          // 5 dimensions at most
                          const Tensor& target,        // as pred
                          std::optional<Tensor> mask,  // as pred, or 1 in a dimension
                          double weight, int64_t reduction) {
  const Reduction how = reduction_of(reduction);
  check_scalar(grad_loss, "grad_loss");
  check_same_device(grad_loss, pred, "grad_loss", "pred");
  MaskedL2 args = arguments_of(pred, target, mask);
  const OnDeviceOf device(pred);
  Tensor grad = new_like(pred);
  set_output(args, kGrad, grad);
  run(args, pred, mask, weight, how, &grad_loss, nullptr, device.stream());
  return grad;
}

// The gradient that the forward pass left ready, times the gradient of the loss.
void masked_l2_scale_(Tensor grad,            // any sizes, without gaps
                      const Tensor& scale) {  // one number
  check_scaled(grad, scale);
  const OnDeviceOf device(grad);
  cuda::scale_in_place(grad.data_ptr(), kind_of(grad), scale.data_ptr(), kind_of(scale), grad.numel(), device.stream());
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, INPAINT_FAST_CUDA_KEY, m) {
  using namespace inpaint_fast;
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2"), TORCH_BOX(&masked_l2));
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2_forward"), TORCH_BOX(&masked_l2));
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2_composite"), TORCH_BOX(&masked_l2_composite));
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2_composite_forward"), TORCH_BOX(&masked_l2_composite));
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2_backward"), TORCH_BOX(&masked_l2_backward));
  m.impl(INPAINT_FAST_CUDA_NAME("masked_l2_scale_"), TORCH_BOX(&masked_l2_scale_));
}
