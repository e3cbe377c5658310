// The arguments of masked_l2's operators as params.h has them, every one of them checked (common/checks.h).
#pragma once

#include "common/checks.h"
#include "masked_l2/params.h"

namespace inpaint_fast {

enum class Reduction : int64_t { sum, mean, mask_mean };

inline Reduction reduction_of(int64_t reduction) {
  STD_TORCH_CHECK(reduction >= 0 && reduction <= static_cast<int64_t>(Reduction::mask_mean),
                  "reduction: 0, 1 or 2 is expected, got ", reduction);
  return static_cast<Reduction>(reduction);
}

inline MaskedL2 arguments_of(const Tensor& pred, const Tensor& target, const std::optional<Tensor>& mask) {
  STD_TORCH_CHECK(pred.dim() <= kMaxDims, "pred: at most ", kMaxDims, " dimensions, got ", pred.dim());
  MaskedL2 args;
  args.kind = check_float(pred, "pred");
  check_same_kind(target, pred, "target", "pred");
  check_same_sizes(target, pred, "target", "pred");
  check_same_device(target, pred, "target", "pred");
  for (const int64_t size : pred.sizes()) args.walk.add_dim(size);
  args.walk.operands = kMaskedL2Operands;
  // An operand that is not there walks as pred does, so that it keeps no dimensions from merging.
  for (int operand = 0; operand < kMaskedL2Operands; ++operand) set_strides(args.walk, operand, pred);
  set_strides(args.walk, kTarget, target);
  args.pred = pred.data_ptr();
  args.target = target.data_ptr();
  if (mask) {
    STD_TORCH_CHECK(mask->dim() == pred.dim(), "mask: the dimensions of pred, ", pred.dim(), ", are expected, got ",
                    mask->dim());
    const auto sizes = mask->sizes();
    for (int d = 0; d < args.walk.dims; ++d)
      STD_TORCH_CHECK(sizes[d] == args.walk.sizes[d] || sizes[d] == 1, "mask: size ", args.walk.sizes[d],
                      " or 1 is expected in dimension ", d, ", got ", sizes[d]);
    check_same_device(*mask, pred, "mask", "pred");
    args.mask_kind = kind_of(*mask);
    STD_TORCH_CHECK(args.mask_kind == ScalarKind::uint8 || args.mask_kind == args.kind ||
                        (args.mask_kind == ScalarKind::float32 && args.kind != ScalarKind::float64),
                    "mask: its dtype is not bool, uint8, float32 or that of pred");
    check_memory(*mask, "mask");
    set_strides(args.walk, kMask, *mask);
    for (int d = 0; d < args.walk.dims; ++d)
      if (sizes[d] != args.walk.sizes[d]) args.walk.strides[kMask][d] = 0;
    args.mask = mask->data_ptr();
  }
  return args;
}

inline void set_output(MaskedL2& args, int operand, const Tensor& tensor) {
  set_strides(args.walk, operand, tensor);
  (operand == kGrad ? args.grad : args.composite) = tensor.data_ptr();
}

// The gradient that is scaled in place: elements without gaps, in whatever order.
inline void check_scaled(const Tensor& grad, const Tensor& scale) {
  check_float(grad, "grad");
  STD_TORCH_CHECK(grad.is_contiguous() || is_dense(grad), "grad: elements that fill its memory are expected");
  check_scalar(scale, "scale");
  check_same_device(scale, grad, "scale", "grad");
}

// The mask's own elements as a walk; every dimension that it is broadcast over only repeats their sum `times` times.
struct MaskWalk {
  Strided walk;
  double times = 1;
  MaskWalk(const Tensor& mask, const Strided& pred) {
    walk.operands = 1;
    for (int64_t d = 0; d < mask.dim(); ++d) {
      if ((mask.stride(d) == 0 && mask.numel() > 0) || mask.size(d) != pred.sizes[d]) {
        times *= static_cast<double>(pred.sizes[d]);
      } else {
        walk.strides[0][walk.dims] = mask.stride(d);
        walk.add_dim(mask.size(d));
      }
    }
    walk.numel = mask.numel() == 0 ? 0 : walk.numel;  // a mask of no element has no memory to sum
    walk.collapse();
  }
};

// A mask with nothing to fill gives no loss and no gradient under "mask_mean"; an empty mean is NaN, as in PyTorch.
inline double scale_of(double weight, double denominator, Reduction reduction) {
  return reduction == Reduction::mask_mean && denominator == 0 ? 0 : weight / denominator;
}

inline Tensor new_loss(const Tensor& pred) {
  const bool wide = pred.scalar_type() == ScalarType::Double;
  return new_strided(pred, {}, {}, wide ? ScalarType::Double : ScalarType::Float);
}

}  // namespace inpaint_fast
