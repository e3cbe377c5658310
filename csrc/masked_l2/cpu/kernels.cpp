// masked_l2 on the CPU: one pass that reads pred, target and mask once and writes the gradient and the composite.
//
// Sums: floats within a block of kBlock elements (at most 32 additions a lane), doubles from there on, in an order that
// depends on the shape alone. Compiled once for each instruction set (INPAINT_FAST_ISA).
#include "masked_l2/params.h"

#include "common/rows.h"
#include "common/vec.h"

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {
namespace {

constexpr int64_t kBlock = 128 * (kVectorBytes / 4);

// `count` elements that lie one after the other, count <= kBlock. MaskVector: a mask value for each element at mask;
// otherwise the one value `constant` for all.
template <class T, class M, bool MaskVector, bool Grad, bool Composite>
double block(const T* pred, const T* target, const M* mask, typename Compute<T>::Scalar constant, T* grad, T* composite,
             typename Compute<T>::Scalar factor, int64_t count, bool past_caches) {
  typedef typename Compute<T>::Scalar A;
  typedef typename Compute<T>::Vector V;
  constexpr int kLanes = lanes<V>();
  constexpr int kUnroll = 4;
  V sums[kUnroll] = {};
  const V factors = broadcast<V>(factor), constants = broadcast<V>(constant), ones = broadcast<V>(A(1));
  auto step = [&](int64_t i, V& sum) __attribute__((always_inline)) {
    const V p = load(pred + i, V{}), t = load(target + i, V{});
    V m = constants;
    if (MaskVector) m = load(mask + i, V{});
    const V d = p - t, md = m * d;
    sum += md * d;
    if (Grad) {
      if (past_caches)
        stream(grad + i, factors * md);
      else
        store(grad + i, factors * md);
    }
    if (Composite) store(composite + i, t * (ones - m) + p * m);
  };
  int64_t i = 0;
  for (; i + kUnroll * kLanes <= count; i += kUnroll * kLanes)
    for (int u = 0; u < kUnroll; ++u) step(i + u * kLanes, sums[u]);
  for (; i + kLanes <= count; i += kLanes) step(i, sums[0]);
  const V total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += total[lane];
  for (; i < count; ++i) {
    const A p = to_scalar(pred[i], A(0)), t = to_scalar(target[i], A(0));
    const A m = MaskVector ? to_scalar(mask[i], A(0)) : constant;
    const A d = p - t, md = m * d;
    sum += static_cast<double>(md) * d;
    if (Grad) from_scalar(grad + i, factor * md);
    if (Composite) from_scalar(composite + i, t * (A(1) - m) + p * m);
  }
  return sum;
}

// out[i] = mask[(first + i) / repeat]: the mask of channels_last rows, spelled out.
template <class A, class M>
void expand(const M* mask, int64_t first, int64_t repeat, int64_t count, A* out) {
  const M* at = mask + first / repeat;
  int64_t i = 0, used = first % repeat;
  if (repeat == 3 && used == 0)  // RGB: a constant the compiler can unroll
    for (; i + 3 <= count; i += 3, ++at) out[i] = out[i + 1] = out[i + 2] = to_scalar(*at, A(0));
  while (i < count) {
    const A value = to_scalar(*at++, A(0));
    for (; used < repeat && i < count; ++used) out[i++] = value;
    used = 0;
  }
}

template <class T, class M, bool Grad, bool Composite>
double walk_rows(const MaskedL2& args, int64_t begin, int64_t end) {
  typedef typename Compute<T>::Scalar A;
  const Strided& walk = args.walk;
  const int inner = walk.dims - 1;
  int64_t step[kMaskedL2Operands];
  for (int k = 0; k < kMaskedL2Operands; ++k) step[k] = walk.strides[k][inner];
  const bool dense = step[kPred] == 1 && step[kTarget] == 1 && (!Grad || step[kGrad] == 1) &&
                     (!Composite || step[kComposite] == 1) && (step[kMask] == 1 || step[kMask] == 0 || !args.mask);
  const A factor = static_cast<A>(args.factor);
  double sum = 0;
  for_each_row(walk, begin, end, [&](const int64_t* offsets, int64_t first, int64_t count) {
    const T* pred = static_cast<const T*>(args.pred) + offsets[kPred] + first * step[kPred];
    const T* target = static_cast<const T*>(args.target) + offsets[kTarget] + first * step[kTarget];
    T* grad = Grad ? static_cast<T*>(args.grad) + offsets[kGrad] + first * step[kGrad] : nullptr;
    T* composite =
        Composite ? static_cast<T*>(args.composite) + offsets[kComposite] + first * step[kComposite] : nullptr;
    const M* mask = args.mask ? static_cast<const M*>(args.mask) + offsets[kMask] : nullptr;
    if (!dense) {
      for (int64_t i = 0; i < count; ++i) {
        const A p = to_scalar(pred[i * step[kPred]], A(0)), t = to_scalar(target[i * step[kTarget]], A(0));
        const A m = mask ? to_scalar(mask[(first + i) * step[kMask]], A(0)) : A(1);
        const A d = p - t, md = m * d;
        sum += static_cast<double>(md) * d;
        if (Grad) from_scalar(grad + i * step[kGrad], factor * md);
        if (Composite) from_scalar(composite + i * step[kComposite], t * (A(1) - m) + p * m);
      }
      return;
    }
    const bool past_caches = Grad && args.stream && is_aligned(grad);
    for (int64_t i = 0; i < count; i += kBlock) {
      const int64_t n = count - i < kBlock ? count - i : kBlock;
      T* g = Grad ? grad + i : nullptr;
      T* c = Composite ? composite + i : nullptr;
      if (!mask || step[kMask] == 0) {
        const A constant = mask ? to_scalar(*mask, A(0)) : A(1);
        sum +=
            block<T, A, false, Grad, Composite>(pred + i, target + i, nullptr, constant, g, c, factor, n, past_caches);
      } else if (args.mask_repeat > 1) {
        A spelled[kBlock];
        expand(mask, first + i, args.mask_repeat, n, spelled);
        sum += block<T, A, true, Grad, Composite>(pred + i, target + i, spelled, A(0), g, c, factor, n, past_caches);
      } else {
        sum += block<T, M, true, Grad, Composite>(pred + i, target + i, mask + first + i, A(0), g, c, factor, n,
                                                  past_caches);
      }
    }
  });
  if (args.stream) stream_fence();
  return sum;
}

template <class T, class M>
double with_outputs(const MaskedL2& args, int64_t begin, int64_t end) {
  if (args.grad && args.composite) return walk_rows<T, M, true, true>(args, begin, end);
  if (args.grad) return walk_rows<T, M, true, false>(args, begin, end);
  if (args.composite) return walk_rows<T, M, false, true>(args, begin, end);
  return walk_rows<T, M, false, false>(args, begin, end);
}

template <class T>
double with_mask(const MaskedL2& args, int64_t begin, int64_t end) {
  if (args.mask_kind == ScalarKind::uint8) return with_outputs<T, uint8_t>(args, begin, end);
  if (args.mask_kind == args.kind || args.mask_kind == ScalarKind::none) return with_outputs<T, T>(args, begin, end);
  return with_outputs<T, float>(args, begin, end);
}
template <>
double with_mask<double>(const MaskedL2& args, int64_t begin, int64_t end) {
  if (args.mask_kind == ScalarKind::uint8) return with_outputs<double, uint8_t>(args, begin, end);
  return with_outputs<double, double>(args, begin, end);
}

template <class M>
double sum_rows(const Strided& walk, const M* mask, int64_t begin, int64_t end) {
  typedef typename Compute<M>::Vector V;
  typedef typename Compute<M>::Scalar A;
  constexpr int kLanes = lanes<V>();
  const int64_t step = walk.strides[0][walk.dims - 1];
  double sum = 0;
  for_each_row(walk, begin, end, [&](const int64_t* offsets, int64_t first, int64_t count) {
    const M* p = mask + offsets[0] + first * step;
    int64_t i = 0;
    while (step == 1 && i + kLanes <= count) {
      const int64_t stop = i + kBlock < count ? i + kBlock : count;
      V total = {};
      for (; i + kLanes <= stop; i += kLanes) total += load(p + i, V{});
      for (int lane = 0; lane < kLanes; ++lane) sum += total[lane];
    }
    for (; i < count; ++i) sum += to_scalar(p[i * step], A(0));
  });
  return sum;
}

template <class T>
void scale_elements(T* grad, typename Compute<T>::Scalar scale, int64_t begin, int64_t end) {
  typedef typename Compute<T>::Vector V;
  typedef typename Compute<T>::Scalar A;
  const V scales = broadcast<V>(scale);
  int64_t i = begin;
  for (; i + lanes<V>() <= end; i += lanes<V>()) store(grad + i, load(grad + i, V{}) * scales);
  for (; i < end; ++i) from_scalar(grad + i, to_scalar(grad[i], A(0)) * scale);
}

}  // namespace

double masked_l2(const MaskedL2& args, int64_t begin, int64_t end) {
  switch (args.kind) {
    case ScalarKind::float64:
      return with_mask<double>(args, begin, end);
    case ScalarKind::float16:
      return with_mask<Half>(args, begin, end);
    case ScalarKind::bfloat16:
      return with_mask<BFloat16>(args, begin, end);
    default:
      return with_mask<float>(args, begin, end);
  }
}

double mask_sum(const Strided& walk, const void* mask, ScalarKind kind, int64_t begin, int64_t end) {
  switch (kind) {
    case ScalarKind::uint8:
      return sum_rows(walk, static_cast<const uint8_t*>(mask), begin, end);
    case ScalarKind::float64:
      return sum_rows(walk, static_cast<const double*>(mask), begin, end);
    case ScalarKind::float16:
      return sum_rows(walk, static_cast<const Half*>(mask), begin, end);
    case ScalarKind::bfloat16:
      return sum_rows(walk, static_cast<const BFloat16*>(mask), begin, end);
    default:
      return sum_rows(walk, static_cast<const float*>(mask), begin, end);
  }
}

void scale_in_place(void* grad, ScalarKind kind, double scale, int64_t begin, int64_t end) {
  switch (kind) {
    case ScalarKind::float64:
      return scale_elements(static_cast<double*>(grad), scale, begin, end);
    case ScalarKind::float16:
      return scale_elements(static_cast<Half*>(grad), static_cast<float>(scale), begin, end);
    case ScalarKind::bfloat16:
      return scale_elements(static_cast<BFloat16*>(grad), static_cast<float>(scale), begin, end);
    default:
      return scale_elements(static_cast<float*>(grad), static_cast<float>(scale), begin, end);
  }
}

}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
