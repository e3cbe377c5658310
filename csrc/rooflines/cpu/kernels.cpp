// What a processor can do at most. Compiled once for each instruction set (INPAINT_FAST_ISA).
#include "rooflines/cpu/kernels.h"

#include "common/vec.h"

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {
namespace {

// Registers that are computed on side by side: more than the latency of an operation times those that begin a cycle.
constexpr int kChains = 12;

// x = step(x), over and over; step reads numbers[1] broadcast.
template <class Step>
INPAINT_FAST_INLINE int64_t repeated(int64_t rounds, float* numbers, const Step& step) {
  Floats x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = broadcast<Floats>(numbers[0] + static_cast<float>(i));
  const Floats number = broadcast<Floats>(numbers[1]);
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) x[i] = step(x[i], number);
  Floats sum{};
  for (int i = 0; i < kChains; ++i) sum += x[i];
  store(numbers, sum[0]);
  return rounds * kChains * lanes<Floats>();
}

template <int kReads, int kRewrites, Way way = Way::plain>
float pass_over(const Streams& streams, int64_t begin, int64_t end) {
  constexpr int kUnroll = kReads + kRewrites == 1 ? 8 : kRewrites == 0 ? 4 : 2;
  constexpr int kLanes = lanes<Floats>();
  static_assert(kStreamStep % (kUnroll * kLanes) == 0, "whole steps");
  static_assert(kAhead % kStreamStep == 0, "whole steps");
  constexpr int64_t kLine = 16;  // floats
  const Floats factor = broadcast<Floats>(streams.factor);
  const auto ask = [&](int64_t from, int64_t to) {  // for lines of all streams, of one after the other
    for (int k = 0; k < kReads; ++k)
      for (int64_t at = from; at < to; at += kLine) __builtin_prefetch(streams.read[k] + at);
    for (int k = 0; k < kRewrites; ++k)
      for (int64_t at = from; at < to; at += kLine) __builtin_prefetch(streams.rewritten[k] + at, 1);
  };
  Floats sums[kUnroll] = {};
  for (int64_t i = begin; i < end; i += kUnroll * kLanes) {
    if (way == Way::ahead) ask(i + kAhead, i + kAhead + kUnroll * kLanes);
    if (way == Way::blocks && (i - begin) % kAhead == 0) ask(i + kAhead, i + 2 * kAhead);
#pragma GCC unroll 8
    for (int k = 0; k < kUnroll; ++k) {
      const int64_t at = i + k * kLanes;
      for (int n = 0; n < kReads; ++n) sums[k] += load(streams.read[n] + at, Floats{});
      for (int n = 0; n < kRewrites; ++n) {
        float* const place = streams.rewritten[n] + at;
        const Floats next = load(place, Floats{}) * factor;
        if (way == Way::streamed)
          stream(place, next);
        else
          store(place, next);
      }
    }
  }
  if (way == Way::streamed) stream_fence();
  float sum = 0;
  for (int k = 0; k < kUnroll; ++k)
    for (int lane = 0; lane < kLanes; ++lane) sum += sums[k][lane];
  return sum;
}

template <int kRewrites>
float pass_in_its_way(const Streams& streams, int64_t begin, int64_t end) {
  switch (streams.way) {
    case Way::ahead:
      return pass_over<1, kRewrites, Way::ahead>(streams, begin, end);
    case Way::blocks:
      return pass_over<1, kRewrites, Way::blocks>(streams, begin, end);
    case Way::streamed:
      return pass_over<1, kRewrites, Way::streamed>(streams, begin, end);
    default:
      return pass_over<1, kRewrites>(streams, begin, end);
  }
}

}  // namespace

int64_t multiply_adds(int64_t rounds, float* numbers) {
  return repeated(rounds, numbers, [](Floats x, Floats number) { return x * number + number; });
}

int64_t roots(int64_t rounds, float* numbers) {
  return repeated(rounds, numbers, [](Floats x, Floats number) { return number / (root(x) + number); });
}

float pass(const Streams& streams, int64_t begin, int64_t end) {
  switch (streams.reads * 10 + streams.rewrites) {
    case 10:
      return pass_over<1, 0>(streams, begin, end);
    case 20:
      return pass_over<2, 0>(streams, begin, end);
    case 30:
      return pass_over<3, 0>(streams, begin, end);
    case 40:
      return pass_over<4, 0>(streams, begin, end);
    case 1:
      return pass_over<0, 1>(streams, begin, end);
    case 11:
      return pass_over<1, 1>(streams, begin, end);
    case 12:
      return pass_in_its_way<2>(streams, begin, end);
    default:
      return pass_in_its_way<3>(streams, begin, end);
  }
}

}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
