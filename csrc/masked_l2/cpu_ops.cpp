// Checks, allocation and registration of masked_l2 on the CPU. Its definition is inpaint_fast/ops/masked_l2.py.
#include <tuple>

#include "common/result_memory.h"
#include "masked_l2/cpu/run.h"

namespace inpaint_fast {
namespace {

Tensor loss_tensor(const Tensor& pred, double value) {
  Tensor loss = new_loss(pred);
  if (loss.scalar_type() == ScalarType::Double)
    *static_cast<double*>(loss.data_ptr()) = value;
  else
    *static_cast<float*>(loss.data_ptr()) = static_cast<float>(value);
  return loss;
}

double number_of(const Tensor& scalar) {
  if (kind_of(scalar) == ScalarKind::float64) return *static_cast<const double*>(scalar.data_ptr());
  return *static_cast<const float*>(scalar.data_ptr());
}

// Loss, gradient (empty where it is not wanted).
std::tuple<Tensor, Tensor> masked_l2(const Tensor& pred,          // 5 dimensions at most
                                     const Tensor& target,        // as pred
                                     std::optional<Tensor> mask,  // as pred, or 1 in a dimension
                                     double weight, int64_t reduction, bool want_grad) {
  const Reduction how = reduction_of(reduction);
  MaskedL2 args = arguments_of(pred, target, mask);
  Tensor grad = want_grad ? empty_result_like(pred) : new_vector(pred, 0);
  if (want_grad) set_output(args, kGrad, grad);
  Tensor loss = loss_tensor(pred, run(args, mask, weight, how, 1));
  return {loss, grad};
}

// Loss, composite, gradient (empty where it is not wanted).
std::tuple<Tensor, Tensor, Tensor> masked_l2_composite(const Tensor& pred,   // 5 dimensions at most
                                                       const Tensor& image,  // as pred
                                                       const Tensor& mask,   // as pred, or 1 in a dimension
                                                       double weight, int64_t reduction, bool want_grad) {
  const Reduction how = reduction_of(reduction);
  MaskedL2 args = arguments_of(pred, image, mask);
  Tensor grad = want_grad ? empty_result_like(pred) : new_vector(pred, 0);
  Tensor composite = empty_result_like(pred);
  if (want_grad) set_output(args, kGrad, grad);
  set_output(args, kComposite, composite);
  Tensor loss = loss_tensor(pred, run(args, mask, weight, how, 1));
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
  Tensor grad = empty_result_like(pred);
  set_output(args, kGrad, grad);
  run(args, mask, weight, how, number_of(grad_loss));
  return grad;
}

// The gradient that the forward pass left ready, times the gradient of the loss: nothing to do when that is 1.
void masked_l2_scale_(Tensor grad,            // any sizes, without gaps
                      const Tensor& scale) {  // one number
  check_scaled(grad, scale);
  const double value = number_of(scale);
  if (value == 1) return;
  const auto kernel = INPAINT_FAST_CPU_KERNEL(scale_in_place);
  const auto kind = kind_of(grad);
  void* data = grad.data_ptr();
  torch::stable::parallel_for(0, grad.numel(), kMaskedL2Chunk,
                              [&](int64_t begin, int64_t end) { kernel(data, kind, value, begin, end); });
}

}  // namespace
}  // namespace inpaint_fast

STABLE_TORCH_LIBRARY_IMPL(inpaint_fast, CPU, m) {
  using namespace inpaint_fast;
  m.impl("masked_l2", TORCH_BOX(&masked_l2));
  m.impl("masked_l2_forward", TORCH_BOX(&masked_l2));
  m.impl("masked_l2_composite", TORCH_BOX(&masked_l2_composite));
  m.impl("masked_l2_composite_forward", TORCH_BOX(&masked_l2_composite));
  m.impl("masked_l2_backward", TORCH_BOX(&masked_l2_backward));
  m.impl("masked_l2_scale_", TORCH_BOX(&masked_l2_scale_));
}
