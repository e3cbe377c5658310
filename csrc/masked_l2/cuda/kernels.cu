// masked_l2 on CUDA: one pass that reads pred, target and mask once and writes the gradient and the composite.
//
//   loss      = weight / denominator * sum(mask * (pred - target)^2)     Pathak et al., Context Encoders (2016), eq. 1
//   grad      = 2 * weight / denominator * grad_loss * mask * (pred - target)
//   composite = target * (1 - mask) + pred * mask
//
// pred, target, grad, composite: T (float, double, Half, BFloat16); mask: M (uint8_t, float or T). All walk one shape,
// MaskedL2::walk, with strides in elements. Elements are computed in float (double for double); a thread adds the few
// of one load in that type and all else in double, so that the loss keeps float accuracy at any size.
//
// Deterministic: the grid follows from the number of elements alone, and the blocks' sums are added in a fixed order.
// One launch, safe in a CUDA graph (common/grid_sum.h); with "mask_mean" one more before it, for the gradient of every
// element needs the sum of the whole mask, and no block can wait for all others to begin.
#include "masked_l2/cuda/launchers.h"

#include <type_traits>

#include "common/device.h"
#include "common/grid_sum.h"
#include "common/launch.h"

namespace inpaint_fast {
namespace cuda {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kBlocksAtOnce = 3;  // on a multiprocessor, at least: enough loads on their way, and no register spilled
// Two 16-byte loads of floats a thread: fewer would leave a block nothing to do while its first load is on its way.
constexpr int64_t kElementsPerBlock = 2048;

__device__ __forceinline__ double scale_of(const MaskedL2Scale& scale) {
  if (!scale.denominator) return scale.weight;
  const double denominator = *scale.denominator;
  return denominator == 0 ? 0 : scale.weight / denominator;  // a mask with nothing to fill
}

__device__ __forceinline__ void store_sum(const MaskedL2Sum& result, double sum) {
  if (result.wide)
    *static_cast<double*>(result.data) = sum;
  else
    *static_cast<float*>(result.data) = static_cast<float>(sum);
}

// ---- the walk ----

// The element at which one operand's row begins. A row is one run of the innermost dimension.
template <class Index>
__device__ __forceinline__ int64_t row_offset(const Strided& walk, int operand, Index row) {
  int64_t offset = 0;
  for (int d = walk.dims - 2; d >= 0; --d) {
    const Index size = static_cast<Index>(walk.sizes[d]);
    const Index outer = d > 0 ? row / size : 0;
    offset += static_cast<int64_t>(row - outer * size) * walk.strides[operand][d];
    row = outer;
  }
  return offset;
}

// The mask of elements [first, first + count) of the walk, count <= N. Dense tensors are walked flat and only the mask
// has rows: it repeats over channels (a short or long row of one value) or over the batch.
template <int N, class A, class M, class Index>
__device__ __forceinline__ void load_mask(const M* mask, const Strided& walk, Index first, int count, A (&m)[N]) {
  const int inner = walk.dims - 1;
  const Index length = static_cast<Index>(walk.sizes[inner]);
  Index row = inner > 0 ? first / length : 0;
  Index at = first - row * length;
  const int64_t step = walk.strides[kMask][inner];
  const M* begin = mask + row_offset(walk, kMask, row);
  if (count == N && at + N <= length) {
    if (step == 0) {
      const A value = to_compute<A>(*begin);
#pragma unroll
      for (int i = 0; i < N; ++i) m[i] = value;
      return;
    }
    if (step == 1 && is_aligned<Pack<M, N>>(begin + at)) {
      const Pack<M, N> pack = load_pack<N>(begin + at);
#pragma unroll
      for (int i = 0; i < N; ++i) m[i] = to_compute<A>(pack.values[i]);
      return;
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i >= count) break;
    m[i] = to_compute<A>(begin[static_cast<int64_t>(at) * step]);
    if (++at == length) {
      at = 0;
      begin = mask + row_offset(walk, kMask, ++row);
    }
  }
}

// ---- the kernels ----

// Dense: pred, target, grad and composite are one run of aligned memory in the same order, moved 16 bytes at a time.
template <class T, class M, class Index, bool Dense>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    masked_l2_kernel(const __grid_constant__ MaskedL2 args, const MaskedL2Scale scale, const GridSumScratch scratch,
                     const MaskedL2Sum result) {
  typedef Compute<T> A;
  constexpr int N = Dense ? kLoadBytes / sizeof(T) : 1;
  const T* const pred = static_cast<const T*>(args.pred);
  const T* const target = static_cast<const T*>(args.target);
  const M* const mask = static_cast<const M*>(args.mask);
  T* const grad = static_cast<T*>(args.grad);
  T* const composite = static_cast<T*>(args.composite);
  const A factor =
      static_cast<A>(2 * scale_of(scale) * (scale.grad_loss ? load_scalar(scale.grad_loss, scale.grad_loss_kind) : 1));
  const Index numel = static_cast<Index>(args.walk.numel);
  const Index stride = static_cast<Index>(gridDim.x) * (kThreads * N);
  double sum = 0;
  for (Index i = (static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x) * N; i < numel; i += stride) {
    const int count = numel - i < N ? static_cast<int>(numel - i) : N;
    int64_t at[kMaxOperands];
    if (!Dense) all_offsets(args.walk, i, at);
    const T* const pred_at = pred + (Dense ? i : at[kPred]);
    const T* const target_at = target + (Dense ? i : at[kTarget]);
    Pack<T, N> p = {}, t = {};
    if (count == N) {
      p = load_pack<N>(pred_at);
      t = load_pack<N>(target_at);
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if (j >= count) break;
        p.values[j] = pred_at[j];
        t.values[j] = target_at[j];
      }
    }
    A m[N];
#pragma unroll
    for (int j = 0; j < N; ++j) m[j] = 1;
    if (mask) {
      if (Dense)
        load_mask(mask, args.walk, i, count, m);
      else
        m[0] = to_compute<A>(mask[at[kMask]]);
    }
    A run = 0;
    Pack<T, N> g, c;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const A x = to_compute<A>(p.values[j]), y = to_compute<A>(t.values[j]);
      const A difference = x - y, weighted = m[j] * difference;
      run += weighted * difference;
      device::store(&g.values[j], factor * weighted);
      device::store(&c.values[j], y * (1 - m[j]) + x * m[j]);
    }
    sum += run;
    T* const grad_at = grad + (Dense ? i : at[kGrad]);
    T* const composite_at = composite + (Dense ? i : at[kComposite]);
    if (count == N) {
      if (grad) store_pack<N>(grad_at, g);
      if (composite) store_pack<N>(composite_at, c);
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if (j >= count) break;
        if (grad) grad_at[j] = g.values[j];
        if (composite) composite_at[j] = c.values[j];
      }
    }
  }
  if (scratch.partials && grid_sum(scratch, sum)) store_sum(result, scale_of(scale) * sum);
}

// The mask's own elements, one at a time: they are few beside those of pred and target.
template <class M, class Index>
__global__ void __launch_bounds__(kThreads)
    mask_sum_kernel(const __grid_constant__ Strided walk, const M* mask, const GridSumScratch scratch,
                    const double times, const MaskedL2Sum result) {
  typedef Compute<M> A;
  const int inner = walk.dims - 1;
  const Index numel = static_cast<Index>(walk.numel), length = static_cast<Index>(walk.sizes[inner]);
  const int64_t step = walk.strides[0][inner];
  double sum = 0;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < numel; i += gridDim.x * kThreads) {
    const Index row = inner > 0 ? i / length : 0;
    sum += to_compute<A>(mask[row_offset(walk, 0, row) + static_cast<int64_t>(i - row * length) * step]);
  }
  if (grid_sum(scratch, sum)) store_sum(result, times * sum);
}

// The gradient of most losses is 1, and then every block leaves at once.
template <class T>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(T* grad, const void* scale, ScalarKind scale_kind, int64_t numel, bool aligned) {
  typedef Compute<T> A;
  constexpr int N = kLoadBytes / sizeof(T);
  const double wide = load_scalar(scale, scale_kind);
  if (wide == 1) return;
  const A factor = static_cast<A>(wide);
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t packs = aligned ? numel / N : 0;
  for (int64_t i = thread; i < packs; i += threads) {
    Pack<T, N> g = load_pack<N>(grad + i * N);
#pragma unroll
    for (int j = 0; j < N; ++j) device::store(&g.values[j], to_compute<A>(g.values[j]) * factor);
    store_pack<N>(grad + i * N, g);
  }
  for (int64_t i = packs * N + thread; i < numel; i += threads)
    device::store(grad + i, to_compute<A>(grad[i]) * factor);
}

// ---- the choice of a kernel ----

// Calls f with a null pointer to the element type of that kind.
template <class F>
void with_element(ScalarKind kind, F f) {
  switch (kind) {
    case ScalarKind::float64:
      return f(static_cast<double*>(nullptr));
    case ScalarKind::float16:
      return f(static_cast<Half*>(nullptr));
    case ScalarKind::bfloat16:
      return f(static_cast<BFloat16*>(nullptr));
    default:
      return f(static_cast<float*>(nullptr));
  }
}

// True when the operand's elements lie one after the other in the order of the walk.
bool is_flat(const Strided& walk, int operand) {
  int64_t expected = 1;
  for (int d = walk.dims - 1; d >= 0; --d) {
    if (walk.strides[operand][d] != expected) return false;
    expected *= walk.sizes[d];
  }
  return true;
}

bool is_dense(const MaskedL2& args) {
  for (int operand : {kPred, kTarget, kGrad, kComposite})
    if (!is_flat(args.walk, operand)) return false;
  typedef Pack<char, kLoadBytes> Aligned;
  return is_aligned<Aligned>(args.pred) && is_aligned<Aligned>(args.target) && is_aligned<Aligned>(args.grad) &&
         is_aligned<Aligned>(args.composite);
}

template <class T, class M>
void start(const MaskedL2& args, const MaskedL2Scale& scale, const GridSumScratch& scratch, const MaskedL2Sum& loss,
           void* stream) {
  const bool wide = args.walk.numel >= INPAINT_FAST_INDEX_LIMIT;
  const auto kernel = is_dense(args)
                          ? wide ? masked_l2_kernel<T, M, uint64_t, true> : masked_l2_kernel<T, M, uint32_t, true>
                      : wide ? masked_l2_kernel<T, M, uint64_t, false>
                             : masked_l2_kernel<T, M, uint32_t, false>;
  launch("masked_l2", kernel, masked_l2_blocks(args.walk.numel), kThreads, 0, stream, args, scale, scratch, loss);
}

template <class M>
void start_mask_sum(const Strided& walk, const void* mask, double times, const GridSumScratch& scratch,
                    const MaskedL2Sum& sum, void* stream) {
  const auto kernel =
      walk.numel >= INPAINT_FAST_INDEX_LIMIT ? mask_sum_kernel<M, uint64_t> : mask_sum_kernel<M, uint32_t>;
  launch("masked_l2 (mask sum)", kernel, masked_l2_blocks(walk.numel), kThreads, 0, stream, walk,
         static_cast<const M*>(mask), scratch, times, sum);
}

}  // namespace

int masked_l2_blocks(int64_t numel) {
  const int64_t blocks = (numel + kElementsPerBlock - 1) / kElementsPerBlock;
  return static_cast<int>(blocks < 1 ? 1 : blocks > kMaskedL2MaxBlocks ? kMaskedL2MaxBlocks : blocks);
}

void masked_l2(const MaskedL2& args, const MaskedL2Scale& scale, const GridSumScratch& scratch, const MaskedL2Sum& loss,
               void* stream) {
  with_element(args.kind, [&](auto* element) {
    typedef std::remove_pointer_t<decltype(element)> T;
    if (args.mask_kind == ScalarKind::uint8)
      start<T, uint8_t>(args, scale, scratch, loss, stream);
    else if (args.mask_kind == ScalarKind::float32)
      start<T, float>(args, scale, scratch, loss, stream);
    else
      start<T, T>(args, scale, scratch, loss, stream);
  });
}

void mask_sum(const Strided& walk, const void* mask, ScalarKind kind, double times, const GridSumScratch& scratch,
              double* sum, void* stream) {
  const MaskedL2Sum result = {sum, true};
  if (kind == ScalarKind::uint8)
    start_mask_sum<uint8_t>(walk, mask, times, scratch, result, stream);
  else
    with_element(kind, [&](auto* element) {
      start_mask_sum<std::remove_pointer_t<decltype(element)>>(walk, mask, times, scratch, result, stream);
    });
}

void scale_in_place(void* grad, ScalarKind kind, const void* scale, ScalarKind scale_kind, int64_t numel,
                    void* stream) {
  with_element(kind, [&](auto* element) {
    typedef std::remove_pointer_t<decltype(element)> T;
    launch("masked_l2 (scale)", scale_kernel<T>, masked_l2_blocks(numel), kThreads, 0, stream, static_cast<T*>(grad),
           scale, scale_kind, numel, is_aligned<Pack<T, kLoadBytes / sizeof(T)>>(grad));
  });
}

}  // namespace cuda
}  // namespace inpaint_fast
