// norm_act on CUDA: batch normalisation and activation, the definition of norm_act/params.h.
//
// In training three launches a direction, for nothing waits for a whole grid inside one: every part of the tensor
// leaves two numbers a channel, one kernel puts these together, one goes over the elements. In eval mode one launch,
// and two more for the gradients of weight and bias. Elements are computed in float (double for double) and summed in
// double; the variance comes from each part's own mean and the squares about it (Chan, Golub, LeVeque, Updating
// formulae and a pairwise algorithm for computing sample variances, 1979).
//
// Deterministic: the parts follow from the shape alone and are added in a fixed order. Nothing waits for the device and
// the host reads nothing from it: safe in a CUDA graph. Offsets have 64 bits, made once for each load of 16 bytes.
#include "norm_act/cuda/launchers.h"

#include <type_traits>

#include "common/device.h"
#include "common/device_activation.h"
#include "common/launch.h"
#include "norm_act/cuda/shares.h"

namespace inpaint_fast {
namespace cuda {
namespace {

using namespace device;

constexpr int kBlocksAtOnce = 2;  // on a multiprocessor, at least: registers for all of it, and none spilled
constexpr int kCombined = 8;      // channels of a block that puts parts together

// ---- numbers of channels ----

__device__ __forceinline__ double load_number(const NormActNumbers& numbers, int64_t c, double otherwise) {
  if (!numbers.data) return otherwise;
  switch (numbers.kind) {
    case ScalarKind::float64:
      return static_cast<const double*>(numbers.data)[c];
    case ScalarKind::float16:
      return to_compute<float>(static_cast<const Half*>(numbers.data)[c]);
    case ScalarKind::bfloat16:
      return to_compute<float>(static_cast<const BFloat16*>(numbers.data)[c]);
    default:
      return static_cast<const float*>(numbers.data)[c];
  }
}
__device__ __forceinline__ void store_number(const NormActNumbers& numbers, int64_t c, double x) {
  if (!numbers.data) return;
  switch (numbers.kind) {
    case ScalarKind::float64:
      return device::store(static_cast<double*>(numbers.data) + c, x);
    case ScalarKind::float16:
      return device::store(static_cast<Half*>(numbers.data) + c, static_cast<float>(x));
    case ScalarKind::bfloat16:
      return device::store(static_cast<BFloat16*>(numbers.data) + c, static_cast<float>(x));
    default:
      return device::store(static_cast<float*>(numbers.data) + c, static_cast<float>(x));
  }
}

// z = scale * (u - shift) + offset of each channel of a thread: u - shift is exact where u is near it, and offset takes
// the rest.
template <class A, int K>
struct Normalise {
  A shift[K], scale[K], offset[K];
  __device__ __forceinline__ void set(int k, double mean, double invstd, double weight, double bias) {
    shift[k] = static_cast<A>(mean);
    scale[k] = static_cast<A>(invstd * weight);
    offset[k] = static_cast<A>(bias - (mean - shift[k]) * (invstd * weight));
  }
  __device__ __forceinline__ void load(const NormActChannels& channels, int64_t first) {
#pragma unroll
    for (int k = 0; k < K; ++k)
      set(k, channels.mean[first + k], channels.invstd[first + k], load_number(channels.weight, first + k, 1),
          load_number(channels.bias, first + k, 0));
  }
};

// Adds up a thread's numbers of each channel over the block in a fixed order and leaves them at out[channel].
template <bool Rows, int K>
__device__ __forceinline__ void add_up(const double (&numbers)[K], int width, int64_t channels, int64_t group,
                                       double* out) {
  if constexpr (Rows) {
    __shared__ double of_threads[kThreads * K];
#pragma unroll
    for (int k = 0; k < K; ++k) of_threads[k * kThreads + threadIdx.x] = numbers[k];
    __syncthreads();
    const int x = threadIdx.x % width, k = threadIdx.x / width;
    const int64_t channel = (group * width + x) * K + k;
    if (k < K && channel < channels) {
      double sum = 0;
      for (int i = x; i < kThreads; i += width) sum += of_threads[k * kThreads + i];
      out[channel] = sum;
    }
  } else {
    const double sum = block_sum(numbers[0]);
    if (threadIdx.x == 0) out[group] = sum;
  }
  __syncthreads();  // before the next sum
}

// ---- the kernels over elements ----

template <class T, int N>
struct Elements {
  Compute<T> values[N];
  __device__ __forceinline__ Elements(const T* p, bool aligned) {
    Pack<T, N> pack;
    if (aligned) {
      pack = load_pack<N>(p);
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) pack.values[j] = p[j];
    }
#pragma unroll
    for (int j = 0; j < N; ++j) values[j] = to_compute<Compute<T>>(pack.values[j]);
  }
  __device__ __forceinline__ void put(T* p) const {
    Pack<T, N> pack;
#pragma unroll
    for (int j = 0; j < N; ++j) device::store(&pack.values[j], values[j]);
    store_pack<N>(p, pack);
  }
};

// The sums of u - first and of its square, where first is the part's first value; statistics_kernel makes moments of
// them. About 0 where that is infinite: all differences would be NaN.
template <class T, bool Rows, int N>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    moments_kernel(const __grid_constant__ NormAct args, const Shares shares, double* partials) {
  typedef Compute<T> A;
  constexpr int K = Rows ? N : 1;
  const Share<Rows, N> share(args, shares);
  const T* const input = static_cast<const T*>(args.input);
  const A slope = static_cast<A>(args.slope);
  const Activation before = act_first(args) ? args.activation : Activation::none;
  double first[K] = {}, sums[K] = {}, squares[K] = {};
  with_activation(before, [&](auto activation) {
    constexpr Activation F = decltype(activation)::value;
    if (share.there) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        const A u = activated<F>(to_compute<A>(input[share.first_element(args) + k]), slope);
        first[k] = u - u == 0 ? u : 0;
      }
    }
    share.each(args, shares, [&](int64_t at) {
      const Elements<T, N> x(input + at, shares.aligned);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const double difference = activated<F>(x.values[j], slope) - first[Rows ? j : 0];
        sums[Rows ? j : 0] += difference;
        squares[Rows ? j : 0] += difference * difference;
      }
    });
  });
  const int64_t group = blockIdx.x / shares.parts, row = share.part * args.channels;
  add_up<Rows>(sums, shares.width, args.channels, group, partials + row);
  add_up<Rows>(squares, shares.width, args.channels, group, partials + shares.parts * args.channels + row);
  if (threadIdx.x >= static_cast<unsigned>(shares.width) || !share.there) return;
  // This block's own numbers again, from those of its threads that wrote them: the barrier above is between.
  const double n = static_cast<double>(share.end - share.begin);
#pragma unroll
  for (int k = 0; k < K; ++k) {
    double* const at = partials + row + share.channel + k;
    const double sum = at[0], about_mean = at[shares.parts * args.channels] - sum * sum / n;
    at[0] = first[k] + sum / n;
    at[shares.parts * args.channels] = about_mean < 0 ? 0 : about_mean;
  }
}

template <class T, bool Rows, int N>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    forward_kernel(const __grid_constant__ NormAct args, const Shares shares,
                   const __grid_constant__ NormActChannels channels) {
  typedef Compute<T> A;
  constexpr int K = Rows ? N : 1;
  const Share<Rows, N> share(args, shares);
  if (!share.there) return;
  const T* const input = static_cast<const T*>(args.input);
  T* const output = static_cast<T*>(args.output);
  const A slope = static_cast<A>(args.slope);
  Normalise<A, K> normalise;
  if (args.training) {
    normalise.load(channels, share.channel);
  } else {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int64_t c = share.channel + k;
      const double mean = load_number(channels.running_mean, c, 0);
      const double invstd = 1 / sqrt(load_number(channels.running_var, c, 1) + channels.eps);
      normalise.set(k, mean, invstd, load_number(channels.weight, c, 1), load_number(channels.bias, c, 0));
      if (share.part == 0 && threadIdx.x < static_cast<unsigned>(shares.width))
        channels.mean[c] = mean, channels.invstd[c] = invstd;
    }
  }
  with_activation(args.activation, [&](auto activation) {
    constexpr Activation F = decltype(activation)::value;
    share.each(args, shares, [&](int64_t at) {
      Elements<T, N> x(input + at, shares.aligned);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int k = Rows ? j : 0;
        const A u = act_first(args) ? activated<F>(x.values[j], slope) : x.values[j];
        const A z = (u - normalise.shift[k]) * normalise.scale[k] + normalise.offset[k];
        x.values[j] = act_first(args) ? z : activated<F>(z, slope);
      }
      x.put(output + at);
    });
  });
}

// d loss / d z of an element, where u - shift is d.
template <Activation F, class A, int K>
__device__ __forceinline__ A grad_of(const NormAct& args, const Normalise<A, K>& normalise, int k, A g, A d, A slope) {
  return act_first(args) ? g : times_activation_slope<F>(g, d * normalise.scale[k] + normalise.offset[k], slope);
}

// The sums of g and of g * (u - shift) of each part.
template <class T, bool Rows, int N>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    sums_kernel(const __grid_constant__ NormAct args, const Shares shares,
                const __grid_constant__ NormActChannels channels) {
  typedef Compute<T> A;
  constexpr int K = Rows ? N : 1;
  const Share<Rows, N> share(args, shares);
  const T *const input = static_cast<const T*>(args.input), *const grad = static_cast<const T*>(args.grad);
  const A slope = static_cast<A>(args.slope);
  Normalise<A, K> normalise;
  if (share.there) normalise.load(channels, share.channel);
  double sums[K] = {}, products[K] = {};
  with_activation(args.activation, [&](auto activation) {
    constexpr Activation F = decltype(activation)::value;
    share.each(args, shares, [&](int64_t at) {
      const Elements<T, N> x(input + at, shares.aligned), g(grad + at, shares.aligned);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int k = Rows ? j : 0;
        const A u = act_first(args) ? activated<F>(x.values[j], slope) : x.values[j], d = u - normalise.shift[k];
        const double of_z = grad_of<F>(args, normalise, k, g.values[j], d, slope);
        sums[k] += of_z;
        products[k] += of_z * d;
      }
    });
  });
  const int64_t group = blockIdx.x / shares.parts;
  double* const out = channels.partials + share.part * args.channels;
  add_up<Rows>(sums, shares.width, args.channels, group, out);
  add_up<Rows>(products, shares.width, args.channels, group, out + shares.parts * args.channels);
}

template <class T, bool Rows, int N>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce)
    backward_kernel(const __grid_constant__ NormAct args, const Shares shares,
                    const __grid_constant__ NormActChannels channels) {
  typedef Compute<T> A;
  constexpr int K = Rows ? N : 1;
  const Share<Rows, N> share(args, shares);
  if (!share.there) return;
  const T *const input = static_cast<const T*>(args.input), *const grad = static_cast<const T*>(args.grad);
  T* const output = static_cast<T*>(args.output);
  const A slope = static_cast<A>(args.slope);
  Normalise<A, K> normalise;
  normalise.load(channels, share.channel);
  A by_value[K] = {}, constant[K] = {};
  if (args.training) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int64_t c = share.channel + k;
      const double invstd = channels.invstd[c];
      const double factor = -invstd * load_number(channels.weight, c, 1) / static_cast<double>(shares.count);
      const double slope_of_value = factor * invstd * channels.totals[args.channels + c];
      by_value[k] = static_cast<A>(slope_of_value);
      constant[k] =
          static_cast<A>(factor * channels.totals[c] - slope_of_value * (channels.mean[c] - normalise.shift[k]));
    }
  }
  with_activation(args.activation, [&](auto activation) {
    constexpr Activation F = decltype(activation)::value;
    share.each(args, shares, [&](int64_t at) {
      const Elements<T, N> x(input + at, shares.aligned);
      Elements<T, N> g(grad + at, shares.aligned);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int k = Rows ? j : 0;
        const A u = act_first(args) ? activated<F>(x.values[j], slope) : x.values[j], d = u - normalise.shift[k];
        A result = normalise.scale[k] * grad_of<F>(args, normalise, k, g.values[j], d, slope);
        if (args.training) result += by_value[k] * d + constant[k];
        g.values[j] = act_first(args) ? times_activation_slope<F>(result, x.values[j], slope) : result;
      }
      g.put(output + at);
    });
  });
}

// ---- the kernels that put parts together ----

// The sum over the threads that have the same channel, in a fixed order, to all of them. A block is kCombined channels
// side by side; the other threads of a channel take its parts by turns.
__device__ __forceinline__ double of_channel(double value) {
  __shared__ double of_threads[kThreads];
  of_threads[threadIdx.x] = value;
  __syncthreads();
  double sum = 0;
  for (int i = threadIdx.x % kCombined; i < kThreads; i += kCombined) sum += of_threads[i];
  __syncthreads();
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    statistics_kernel(const Shares shares, const __grid_constant__ NormActChannels channels, int64_t of_all) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kCombined + threadIdx.x % kCombined;
  const int turn = threadIdx.x / kCombined, turns = kThreads / kCombined;
  const bool there = c < of_all;
  const double count = static_cast<double>(shares.count);
  const auto values = [&](int part) {
    const int64_t rest = shares.count - part * shares.length;
    return static_cast<double>(rest < shares.length ? rest : shares.length);
  };
  double mean = 0, sum = 0;
  if (channels.batch_mean) {
    if (there) mean = channels.batch_mean[c], sum = channels.batch_var[c] * count;
  } else {
    const double *const means = channels.partials + c, *const squares = means + shares.parts * of_all;
    const double given = there ? means[0] : 0, first = given - given == 0 ? given : 0;
    for (int part = turn; there && part < shares.parts; part += turns)
      sum += values(part) * (means[part * of_all] - first);
    mean = first + of_channel(sum) / count;
    sum = 0;
    for (int part = turn; there && part < shares.parts; part += turns) {
      const double difference = means[part * of_all] - mean;
      sum += squares[part * of_all] + values(part) * difference * difference;
    }
    sum = of_channel(sum);
  }
  if (turn != 0 || !there) return;
  channels.mean[c] = mean;
  channels.invstd[c] = 1 / sqrt(sum / count + channels.eps);
  const double share = channels.momentum;
  store_number(channels.new_mean, c, share * mean + (1 - share) * load_number(channels.running_mean, c, 0));
  store_number(channels.new_var, c,
               share * (sum / (count - 1)) + (1 - share) * load_number(channels.running_var, c, 0));
}

// The gradients of bias and weight; A is the type that shift is in.
template <class A>
__global__ void __launch_bounds__(kThreads)
    totals_kernel(const Shares shares, const __grid_constant__ NormActChannels channels, int64_t of_all) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kCombined + threadIdx.x % kCombined;
  const int turn = threadIdx.x / kCombined, turns = kThreads / kCombined;
  const bool there = c < of_all;
  const double *const sums = channels.partials + c, *const products = sums + shares.parts * of_all;
  double sum = 0, product = 0;
  for (int part = turn; there && part < shares.parts; part += turns) {
    sum += sums[part * of_all];
    product += products[part * of_all];
  }
  sum = of_channel(sum);
  product = of_channel(product);
  if (turn != 0 || !there) return;
  const double mean = channels.mean[c], rest = mean - static_cast<A>(mean);
  product = channels.invstd[c] * (product - rest * sum);  // of g * (u - mean) / std
  channels.totals[c] = sum;
  channels.totals[of_all + c] = product;
  store_number(channels.grad_weight, c, product);
  store_number(channels.grad_bias, c, sum);
}

// ---- the choice of a kernel ----

// The template arguments of a kernel.
template <class T_, bool Rows_, int N_>
struct Variant {
  typedef T_ T;
  static constexpr bool Rows = Rows_;
  static constexpr int N = N_;
};

template <class T, class F>
void with_pack(const NormAct& args, const Shares& shares, F f) {
  constexpr int N = kLoadBytes / sizeof(T);
  if (shares.pack == 1)
    args.rows ? f(Variant<T, true, 1>{}) : f(Variant<T, false, 1>{});
  else
    args.rows ? f(Variant<T, true, N>{}) : f(Variant<T, false, N>{});
}

template <class F>
void with_variant(const NormAct& args, const Shares& shares, F f) {
  switch (args.kind) {
    case ScalarKind::float64:
      return with_pack<double>(args, shares, f);
    case ScalarKind::float16:
      return with_pack<Half>(args, shares, f);
    case ScalarKind::bfloat16:
      return with_pack<BFloat16>(args, shares, f);
    default:
      return with_pack<float>(args, shares, f);
  }
}

unsigned blocks_of(const Shares& shares) { return static_cast<unsigned>(shares.parts * shares.groups); }
unsigned combining_blocks(const NormAct& args) { return static_cast<unsigned>(ceil_div(args.channels, kCombined)); }

}  // namespace

int64_t norm_act_partials(const NormAct& args) { return 2 * shares_of(args).parts * args.channels; }

void norm_act(const NormAct& args, const NormActChannels& channels, void* stream) {
  const Shares shares = shares_of(args);
  const unsigned blocks = blocks_of(shares);
  with_variant(args, shares, [&](auto variant) {
    typedef decltype(variant) V;
    if (args.training) {
      if (!channels.batch_mean)
        launch("norm_act (moments)", moments_kernel<typename V::T, V::Rows, V::N>, blocks, kThreads, 0, stream, args,
               shares, channels.partials);
      launch("norm_act (statistics)", statistics_kernel, combining_blocks(args), kThreads, 0, stream, shares, channels,
             args.channels);
    }
    launch("norm_act", forward_kernel<typename V::T, V::Rows, V::N>, blocks, kThreads, 0, stream, args, shares,
           channels);
  });
}

void norm_act_backward(const NormAct& args, const NormActChannels& channels, void* stream) {
  const Shares shares = shares_of(args);
  const unsigned blocks = blocks_of(shares);
  const bool want_parameters = channels.grad_weight.data || channels.grad_bias.data;
  with_variant(args, shares, [&](auto variant) {
    typedef decltype(variant) V;
    if (want_parameters || (args.training && args.output)) {
      launch("norm_act (sums)", sums_kernel<typename V::T, V::Rows, V::N>, blocks, kThreads, 0, stream, args, shares,
             channels);
      launch("norm_act (totals)", totals_kernel<Compute<typename V::T>>, combining_blocks(args), kThreads, 0, stream,
             shares, channels, args.channels);
    }
    if (args.output)
      launch("norm_act (backward)", backward_kernel<typename V::T, V::Rows, V::N>, blocks, kThreads, 0, stream, args,
             shares, channels);
  });
}

}  // namespace cuda
}  // namespace inpaint_fast
