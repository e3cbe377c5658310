// weight_clip and the clipped optimizers on CUDA: many tensors in one launch, every operand read once and written once.
//
// One rule updates each parameter p from its gradient and up to three states and then clips it (params.h has the table
// of rules; Arjovsky et al., Wasserstein GAN (2017), algorithm 1, for the clip). Operands: T (float, double, Half,
// BFloat16), computed in float (double for double); adam's bias corrections in double, from a count of steps in units
// of one step. Strides and offsets are in elements.
//
// The table of tensors is a parameter of the kernel. A block does one chunk of one tensor, which it finds by binary
// search over the chunks up to each tensor's end. No element depends on another: deterministic, safe in a CUDA graph.
#include "weight_clip/cuda/launchers.h"

#include <algorithm>
#include <cmath>

#include "common/device.h"
#include "common/launch.h"

namespace inpaint_fast {
namespace cuda {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kBlocks = 3;  // at once on a multiprocessor, or their loads could not hide each other
// Four 16-byte loads of floats a thread and operand: enough blocks for a small critic to fill the device.
constexpr int64_t kChunk = 4096;
constexpr int64_t kMaxStridedBlocks = 4096;

// ---- parameters of the kernels ----

struct Entry {
  void* data[kUpdateOperands];
  int64_t numel;
  const float* count;  // null: known_count has it
  float known_count;
  uint32_t end_chunk;  // of the launch, after this entry's last: 2^32 chunks are more than a device holds
};

template <int Capacity>
struct Table {
  Entry entries[Capacity];  // left as they are beyond size
  int size;
};

// The settings of a rule in the type it is computed in.
template <class A>
struct Numbers {
  A beta1, beta2, one_minus_beta1, one_minus_beta2, eps, weight_decay, low, high;
  double exact_lr, exact_beta1, exact_beta2, exact_shrink, gradient_factor;
  UpdateScalars scalars;
  bool variant, first;

  Numbers(const UpdateSettings& s, const UpdateScalars& scalars)
      : beta1(static_cast<A>(s.beta1)),
        beta2(static_cast<A>(s.beta2)),
        one_minus_beta1(static_cast<A>(1 - s.beta1)),
        one_minus_beta2(static_cast<A>(1 - s.beta2)),
        eps(static_cast<A>(s.eps)),
        weight_decay(static_cast<A>(s.weight_decay)),
        low(static_cast<A>(s.low)),
        high(static_cast<A>(s.high)),
        exact_lr(s.lr),
        exact_beta1(s.beta1),
        exact_beta2(s.beta2),
        exact_shrink(s.shrink),
        gradient_factor(s.gradient_factor),
        scalars(scalars),
        variant(s.variant),
        first(s.first) {}
};

// ---- the rules ----

// What differs from tensor to tensor, and what only the device knows.
template <class A>
struct Factors {
  A gradient;                // 1 / grad_scale, negative to maximize
  A lr, keep;                // keep: 1 - lr * shrink
  A step_size, root_factor;  // adam: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
};

// For the whole block, which must come together: powers are too dear for every thread.
template <Rule rule, class A>
__device__ __forceinline__ Factors<A> block_factors(const Numbers<A>& n, const Entry& entry) {
  __shared__ Factors<A> factors;
  if (threadIdx.x == 0) {
    const UpdateScalars& scalars = n.scalars;
    factors.gradient = static_cast<A>(n.gradient_factor / (scalars.grad_scale ? *scalars.grad_scale : 1));
    const double lr = scalars.rate ? n.exact_lr * *scalars.rate : n.exact_lr;
    factors.lr = static_cast<A>(lr);
    factors.keep = static_cast<A>(n.exact_shrink != 0 ? 1 - lr * n.exact_shrink : 1);
    if (rule == Rule::adam) {
      const double t = entry.count ? *entry.count : entry.known_count;
      factors.step_size = static_cast<A>(lr / (1 - std::pow(n.exact_beta1, t)));
      factors.root_factor = static_cast<A>(1 / std::sqrt(1 - std::pow(n.exact_beta2, t)));
    }
  }
  __syncthreads();
  return factors;
}

// The new parameter and states from the old ones and the gradient g. Formulas as in torch.optim.
template <Rule rule, class A>
__device__ __forceinline__ A updated(const Numbers<A>& n, const Factors<A>& factors, const Entry& e, A p, A g,
                                     A (&state)[3]) {
  if (rule == Rule::adam) {
    state[0] += (g - state[0]) * n.one_minus_beta1;
    state[1] = n.beta2 * state[1] + n.one_minus_beta2 * g * g;
    A second = state[1];
    if (n.variant) second = state[2] = second > state[2] || second != second ? second : state[2];  // NaN stays
    return p - factors.step_size * state[0] / (std::sqrt(second) * factors.root_factor + n.eps);
  }
  if (rule == Rule::rmsprop) {
    state[0] = n.beta1 * state[0] + n.one_minus_beta1 * g * g;
    A variance = state[0];
    if (e.data[kState2]) {
      state[2] += (g - state[2]) * n.one_minus_beta1;
      variance -= state[2] * state[2];
    }
    const A change = g / (n.variant ? std::sqrt(variance + n.eps) : std::sqrt(variance) + n.eps);
    if (!e.data[kState1]) return p - factors.lr * change;
    state[1] = n.beta2 * state[1] + change;
    return p - factors.lr * state[1];
  }
  if (rule == Rule::sgd) {
    if (!e.data[kState0]) return p - factors.lr * g;
    state[0] = n.first ? g : n.beta1 * state[0] + n.one_minus_beta2 * g;
    return p - factors.lr * (n.variant ? g + n.beta1 * state[0] : state[0]);
  }
  state[0] = n.beta1 * state[0] + n.one_minus_beta1 * g * g;  // adadelta
  const A delta = std::sqrt(state[1] + n.eps) / std::sqrt(state[0] + n.eps) * g;
  state[1] = n.beta1 * state[1] + n.one_minus_beta1 * delta * delta;
  return p - factors.lr * delta;
}

// N elements in a row, operand k's at offsets[k].
template <class T, Rule rule, int N>
struct Update {
  typedef Compute<T> A;

  static __device__ __forceinline__ void at(const Numbers<A>& n, const Factors<A>& factors, const Entry& e,
                                            const int64_t (&offsets)[kUpdateOperands]) {
    Pack<T, N> packs[kUpdateOperands];
#pragma unroll
    for (int k = 0; k < kUpdateOperands; ++k)
      if (e.data[k]) packs[k] = load_pack<N>(static_cast<const T*>(e.data[k]) + offsets[k]);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const A p = to_compute<A>(packs[kParam].values[i]);
      A g = to_compute<A>(packs[kGradient].values[i]) * factors.gradient;
      if (n.weight_decay != A(0)) g += n.weight_decay * p;  // no times an infinite parameter would be NaN
      A state[3];
#pragma unroll
      for (int k = 0; k < 3; ++k) state[k] = e.data[kState0 + k] ? to_compute<A>(packs[kState0 + k].values[i]) : A(0);
      const A moved = updated<rule>(n, factors, e, p * factors.keep, g, state);
      device::store(&packs[kParam].values[i], moved < n.low ? n.low : moved > n.high ? n.high : moved);  // NaN stays
#pragma unroll
      for (int k = 0; k < 3; ++k) device::store(&packs[kState0 + k].values[i], state[k]);
    }
#pragma unroll
    for (int k = 0; k < kUpdateOperands; ++k)
      if (k != kGradient && e.data[k]) store_pack<N>(static_cast<T*>(e.data[k]) + offsets[k], packs[k]);
  }
};

// A clip alone does not write a vector in which nothing is to clip.
template <class T, int N>
struct Update<T, Rule::clip, N> {
  typedef Compute<T> A;

  static __device__ __forceinline__ void at(const Numbers<A>& n, const Factors<A>&, const Entry& e,
                                            const int64_t (&offsets)[kUpdateOperands]) {
    // Bounds as T has them: a value that was clipped before lies within.
    T low_stored, high_stored;
    device::store(&low_stored, n.low);
    device::store(&high_stored, n.high);
    const A low = to_compute<A>(low_stored), high = to_compute<A>(high_stored);
    T* const p = static_cast<T*>(e.data[kParam]) + offsets[kParam];
    Pack<T, N> pack = load_pack<N>(p);
    bool outside = false;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const A x = to_compute<A>(pack.values[i]);
      if (x < low) pack.values[i] = low_stored;
      if (x > high) pack.values[i] = high_stored;
      outside |= x < low || x > high;
    }
    if (outside) store_pack<N>(p, pack);
  }
};

// ---- the kernels ----

__device__ __forceinline__ bool is_skipped(const float* found_inf) { return found_inf && *found_inf != 0; }

// One block a chunk of a dense tensor: 16 bytes at a time where all operands begin at such an address.
template <class T, Rule rule, int Capacity>
__global__ void __launch_bounds__(kThreads, kBlocks)
    clipped_update_kernel(const __grid_constant__ Table<Capacity> table,
                          const __grid_constant__ Numbers<Compute<T>> n) {
  if (is_skipped(n.scalars.found_inf)) return;
  int index = 0, after = table.size - 1;  // the first entry that ends after this block's chunk
  while (index < after) {
    const int middle = (index + after) / 2;
    if (table.entries[middle].end_chunk > blockIdx.x)
      after = middle;
    else
      index = middle + 1;
  }
  const Entry& e = table.entries[index];
  const Factors<Compute<T>> factors = block_factors<rule>(n, e);
  const int64_t begin = (blockIdx.x - (index > 0 ? table.entries[index - 1].end_chunk : 0)) * kChunk;
  const int64_t end = begin + kChunk < e.numel ? begin + kChunk : e.numel;

  constexpr int N = kLoadBytes / sizeof(T);
  bool aligned = true;
#pragma unroll
  for (int k = 0; k < kUpdateOperands; ++k) aligned = aligned && is_aligned<Pack<T, N>>(e.data[k]);
  const int64_t packs_end = aligned ? end - (end - begin) % N : begin;
#pragma unroll 1  // blocks beside each other hide the loads; more registers would only leave fewer of them
  for (int64_t i = begin + threadIdx.x * N; i < packs_end; i += kThreads * N)
    Update<T, rule, N>::at(n, factors, e, {i, i, i, i, i});
  for (int64_t i = packs_end + threadIdx.x; i < end; i += kThreads)
    Update<T, rule, 1>::at(n, factors, e, {i, i, i, i, i});
}

// One tensor whose operands are not dense in one order, element by element.
template <class T, Rule rule, class Index>
__global__ void __launch_bounds__(kThreads)
    clipped_strided_kernel(const __grid_constant__ Entry e, const __grid_constant__ Strided walk,
                           const __grid_constant__ Numbers<Compute<T>> n) {
  if (is_skipped(n.scalars.found_inf)) return;
  const Factors<Compute<T>> factors = block_factors<rule>(n, e);
  const Index numel = static_cast<Index>(e.numel);
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < numel; i += gridDim.x * kThreads) {
    int64_t offsets[kUpdateOperands];
    all_offsets(walk, i, offsets);
    Update<T, rule, 1>::at(n, factors, e, offsets);
  }
}

constexpr int kCounts = 500;  // within 4 KB of parameters

struct Counts {
  float* at[kCounts];
  int size;
};

__global__ void __launch_bounds__(kCounts)
    clipped_count_kernel(const __grid_constant__ Counts counts, const float* found_inf) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < counts.size && !is_skipped(found_inf)) *counts.at[i] += 1;
}

// ---- launches ----

template <class T, Rule rule>
class Launcher {
 public:
  Launcher(const UpdateSettings& settings, const UpdateScalars& scalars, void* stream)
      : numbers_(settings, scalars), stream_(stream) {}

  // Fills tables of that capacity with the dense entries and launches each when it is full, or the last.
  template <int Capacity>
  void dense(const UpdateEntry* entries, size_t size, const UpdateCount* counts) const {
    Table<Capacity> table;
    table.size = 0;
    uint32_t chunks = 0;
    auto flush = [&] {
      if (table.size == 0) return;
      launch("clipped update", clipped_update_kernel<T, rule, Capacity>, chunks, kThreads, 0, stream_, table, numbers_);
      table.size = 0, chunks = 0;
    };
    for (size_t i = 0; i < size; ++i) {
      if (entries[i].strided || entries[i].numel == 0) continue;
      chunks += static_cast<uint32_t>((entries[i].numel + kChunk - 1) / kChunk);
      table.entries[table.size++] = entry_of(entries[i], counts ? counts[i] : UpdateCount(), chunks);
      if (table.size == Capacity) flush();
    }
    flush();
  }

  void strided(const UpdateEntry& entry, const UpdateCount& count) const {
    const int64_t blocks = (entry.numel + kThreads - 1) / kThreads;
    const auto kernel = entry.numel >= INPAINT_FAST_INDEX_LIMIT ? clipped_strided_kernel<T, rule, uint64_t>
                                                                : clipped_strided_kernel<T, rule, uint32_t>;
    launch("clipped update (strided)", kernel, static_cast<unsigned>(std::min(blocks, kMaxStridedBlocks)), kThreads, 0,
           stream_, entry_of(entry, count, 0), *entry.strided, numbers_);
  }

 private:
  static Entry entry_of(const UpdateEntry& from, const UpdateCount& count, uint32_t end_chunk) {
    Entry entry;
    for (int k = 0; k < kUpdateOperands; ++k) entry.data[k] = from.data[k];
    entry.numel = from.numel;
    entry.count = count.on_device;
    entry.known_count = count.known;
    entry.end_chunk = end_chunk;
    return entry;
  }

  Numbers<Compute<T>> numbers_;
  void* stream_;
};

template <class T, Rule rule>
void update_all(const UpdateSettings& settings, const UpdateEntry* entries, size_t size, const UpdateCount* counts,
                const UpdateScalars& scalars, void* stream) {
#if !defined(CUDART_VERSION) || CUDART_VERSION >= 12010
  constexpr int kMany = kUpdateManyTensors;
  static_assert(sizeof(Table<kMany>) + sizeof(Numbers<double>) <= 32764, "too large for parameters");
#else
  constexpr int kMany = kUpdateFewTensors;
#endif
  static_assert(sizeof(Table<kUpdateFewTensors>) + sizeof(Numbers<double>) <= 4096, "too large for parameters");
  const Launcher<T, rule> launcher(settings, scalars, stream);
  if (size <= kUpdateFewTensors)  // a launch copies all of its table
    launcher.template dense<kUpdateFewTensors>(entries, size, counts);
  else
    launcher.template dense<kMany>(entries, size, counts);
  for (size_t i = 0; i < size; ++i)
    if (entries[i].strided && entries[i].numel > 0) launcher.strided(entries[i], counts ? counts[i] : UpdateCount());
}

template <class T>
void with_rule(const UpdateSettings& settings, const UpdateEntry* entries, size_t size, const UpdateCount* counts,
               const UpdateScalars& scalars, void* stream) {
  switch (settings.rule) {
    case Rule::clip:
      return update_all<T, Rule::clip>(settings, entries, size, counts, scalars, stream);
    case Rule::adam:
      return update_all<T, Rule::adam>(settings, entries, size, counts, scalars, stream);
    case Rule::rmsprop:
      return update_all<T, Rule::rmsprop>(settings, entries, size, counts, scalars, stream);
    case Rule::sgd:
      return update_all<T, Rule::sgd>(settings, entries, size, counts, scalars, stream);
    case Rule::adadelta:
      return update_all<T, Rule::adadelta>(settings, entries, size, counts, scalars, stream);
  }
}

}  // namespace

void count_steps(float* const* counts, size_t size, const float* found_inf, void* stream) {
  for (size_t begin = 0; begin < size; begin += kCounts) {
    Counts some;
    some.size = static_cast<int>(std::min<size_t>(size - begin, kCounts));
    std::copy_n(counts + begin, some.size, some.at);
    launch("clipped update (count)", clipped_count_kernel, 1, kCounts, 0, stream, some, found_inf);
  }
}

void update(const UpdateSettings& settings, const UpdateEntry* entries, size_t size, const UpdateCount* counts,
            const UpdateScalars& scalars, void* stream) {
  switch (settings.kind) {
    case ScalarKind::float64:
      return with_rule<double>(settings, entries, size, counts, scalars, stream);
    case ScalarKind::float16:
      return with_rule<Half>(settings, entries, size, counts, scalars, stream);
    case ScalarKind::bfloat16:
      return with_rule<BFloat16>(settings, entries, size, counts, scalars, stream);
    default:
      return with_rule<float>(settings, entries, size, counts, scalars, stream);
  }
}

}  // namespace cuda
}  // namespace inpaint_fast
