// Which block and thread of norm_act's CUDA kernels has which elements.
#pragma once

#include "common/device.h"
#include "norm_act/params.h"

namespace inpaint_fast {
namespace cuda {
namespace {

using device::is_aligned;
using device::kLoadBytes;
using device::Pack;

constexpr int kThreads = 256;
constexpr int64_t kMaxParts = 512;  // of a channel's values
constexpr int64_t kBlocks = 2048;   // fill any GPU; more would only leave more to put together
constexpr int kLoadsAThread = 4;    // at least, where there are as many

// A block has the values [part * length, (part + 1) * length) of some channels. A thread loads `pack` elements at a
// time: of one channel in planes, one of each of its channels in rows, where `width` threads lie side by side.
struct Shares {
  int64_t count, length;  // values of a channel, of a part
  int64_t groups;
  int parts, width, pack;
  bool aligned;  // packs can be loaded at once
};

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

__device__ __forceinline__ bool act_first(const NormAct& args) { return args.order == Order::act_norm; }

// All that an order of sums depends on follows from the sizes and the dtype.
Shares shares_of(const NormAct& args) {
  Shares s;
  const int64_t pack = args.kind == ScalarKind::float64 ? 2 : args.kind == ScalarKind::float32 ? 4 : 8;
  s.pack = (args.rows ? args.channels : args.pixels) % pack == 0 ? static_cast<int>(pack) : 1;
  s.count = args.samples * args.pixels;
  s.width = 1;
  while (args.rows && s.width < 32 && s.width * s.pack < args.channels) s.width *= 2;
  const int64_t of_block = args.rows ? s.width * s.pack : 1;
  s.groups = ceil_div(args.channels, of_block);
  // Values that a block has before it at a time.
  const int64_t tile = args.rows ? kThreads / s.width : kThreads * s.pack;
  int64_t parts = smaller(ceil_div(s.count, kLoadsAThread * tile), kMaxParts);
  parts = smaller(parts, ceil_div(kBlocks, s.groups));
  s.length = parts ? ceil_div(ceil_div(s.count, parts), tile) * tile : 1;
  s.parts = static_cast<int>(ceil_div(s.count, s.length));  // none of them is empty
  typedef Pack<char, kLoadBytes> Aligned;
  s.aligned = s.pack == 1 || (is_aligned<Aligned>(args.input) && is_aligned<Aligned>(args.grad));
  return s;
}

// The share of this block and thread.
template <bool Rows, int N>
struct Share {
  int part;
  int64_t begin, end;  // values
  int64_t channel;     // the first one of this thread
  bool there;          // false: this thread has none

  __device__ __forceinline__ Share(const NormAct& args, const Shares& shares) {
    part = blockIdx.x % shares.parts;
    const int64_t group = blockIdx.x / shares.parts, behind = (part + 1) * shares.length;
    begin = part * shares.length;
    end = behind < shares.count ? behind : shares.count;
    channel = Rows ? (group * shares.width + threadIdx.x % shares.width) * N : group;
    there = channel < args.channels;
  }

  // Calls step(element) for the first element of each of this thread's packs.
  template <class Step>
  __device__ __forceinline__ void each(const NormAct& args, const Shares& shares, Step step) const {
    if (!there) return;
    if (Rows) {
      const int lanes = kThreads / shares.width;
      for (int64_t i = begin + threadIdx.x / shares.width; i < end; i += lanes) step(i * args.channels + channel);
      return;
    }
    // Values are counted through the samples: value i is pixel i % pixels of sample i / pixels.
    const int64_t sample = begin / args.pixels, pixel = begin - sample * args.pixels;
    const bool short_planes = args.pixels < shares.length;
    const int length = static_cast<int>(end - begin);
    for (int i = threadIdx.x * N; i < length; i += kThreads * N) {
      const int64_t at = pixel + i;
      // A part is short, and then so is what is divided: 32 bits, several times faster.
      const int64_t samples = short_planes ? static_cast<uint32_t>(at) / static_cast<uint32_t>(args.pixels)
                                           : static_cast<int64_t>(at >= args.pixels);
      step(((sample + samples) * args.channels + channel) * args.pixels + at - samples * args.pixels);
    }
  }

  __device__ __forceinline__ int64_t first_element(const NormAct& args) const {
    if (Rows) return begin * args.channels + channel;
    return (begin / args.pixels * args.channels + channel) * args.pixels + begin % args.pixels;
  }
};

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
