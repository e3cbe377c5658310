// norm_act on the CPU: two passes over the tensor. The first gathers a pair of numbers from every chunk, which are put
// together; the second writes.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <vector>

#include "norm_act/params.h"

namespace inpaint_fast {

typedef std::vector<double> Numbers;  // one of each channel

struct Pairs {
  Numbers first, second;
  int64_t part_stride, channel_stride;
  Pairs(const NormAct& args)
      : first(args.parts() * args.channels),
        second(first.size()),
        part_stride(args.rows ? args.channels : 1),
        channel_stride(args.rows ? 1 : args.parts()) {}
  int64_t at(int64_t part, int64_t channel) const { return part * part_stride + channel * channel_stride; }
};

class Passes {
 public:
  explicit Passes(const NormAct& args)
      : args_(args),
        kernel_(INPAINT_FAST_CPU_KERNEL(norm_act_chunk)),
        parts_(args.parts()),
        groups_(args.groups()),
        // Tasks of some ten thousand elements at least.
        grain_(ceil_div(kNormActElements * parts_ * groups_, args.samples * args.channels * args.pixels)) {}

  // gather_step, together(pairs, first channel, last channel) and write_step; either step may be left out.
  // In planes a channel goes through all of it while it is in the cache, where there are channels for every thread.
  template <class Together>
  void run(bool gather, NormActStep gather_step, bool write, NormActStep write_step, const Together& together) {
    Pairs pairs(args_);
    if (!args_.rows && groups_ >= 2 * static_cast<int64_t>(torch::stable::get_num_threads())) {
      torch::stable::parallel_for(0, groups_, ceil_div(grain_, parts_), [&](int64_t begin, int64_t end) {
        for (int64_t channel = begin; channel < end; ++channel) {
          for (int64_t part = 0; gather && part < parts_; ++part) one(gather_step, part, channel, pairs);
          together(pairs, channel, channel + 1);
          for (int64_t part = 0; write && part < parts_; ++part) one(write_step, part, channel, pairs);
        }
      });
      return;
    }
    if (gather) all(gather_step, pairs);
    together(pairs, 0, args_.channels);
    if (write) all(write_step, pairs);
  }

 private:
  void one(NormActStep step, int64_t part, int64_t group, Pairs& pairs) const {
    const NormActChunk chunk = args_.chunk(part, group);
    const int64_t at = pairs.at(part, chunk.channel_begin);
    kernel_(args_, step, chunk, pairs.first.data() + at, pairs.second.data() + at);
  }
  void all(NormActStep step, Pairs& pairs) const {
    torch::stable::parallel_for(0, parts_ * groups_, grain_, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)  // in the order of memory
        args_.rows ? one(step, i / groups_, i % groups_, pairs) : one(step, i % parts_, i / parts_, pairs);
    });
  }

  const NormAct& args_;
  void (*kernel_)(const NormAct&, NormActStep, const NormActChunk&, double*, double*);
  const int64_t parts_, groups_, grain_;
};

// The parts' moments as those of all values (Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for
// computing sample variances, 1979), part after part.
inline void join_moments(const NormAct& args, const Pairs& pairs, int64_t begin, int64_t end, Numbers& mean,
                         Numbers& squares) {
  double count = 0;
  for (int64_t part = 0; part < args.parts(); ++part) {
    const double more = static_cast<double>(args.chunk(part, 0).count()), share = more / (count + more);
    for (int64_t c = begin; c < end; ++c) {
      const int64_t at = pairs.at(part, c);
      const double difference = pairs.first[at] - mean[c];
      // Without a part before, the first one as it is: 0 times an infinite difference would be NaN.
      mean[c] = count == 0 ? pairs.first[at] : mean[c] + difference * share;
      squares[c] += pairs.second[at] + (count == 0 ? 0 : difference * difference * count * share);
    }
    count += more;
  }
}

inline void join_sums(const NormAct& args, const Pairs& pairs, int64_t begin, int64_t end, Numbers& first,
                      Numbers& second) {
  for (int64_t part = 0; part < args.parts(); ++part)
    for (int64_t c = begin; c < end; ++c) {
      first[c] += pairs.first[pairs.at(part, c)];
      second[c] += pairs.second[pairs.at(part, c)];
    }
}

// z = scale * (u - shift) + offset of each channel: shift is the mean as the kernel's type can hold it, so that
// u - shift is exact where u is near it, and offset takes the rest.
struct Normalise {
  Numbers shift, scale, offset;
  explicit Normalise(NormAct& args) : shift(args.channels), scale(args.channels), offset(args.channels) {
    args.shift = shift.data(), args.scale = scale.data(), args.offset = offset.data();
  }
  void set(const NormAct& args, int64_t c, double mean, double invstd, double weight, double bias) {
    shift[c] = args.kind == ScalarKind::float64 ? mean : static_cast<float>(mean);
    scale[c] = invstd * weight;
    offset[c] = bias - (mean - shift[c]) * scale[c];
  }
};

}  // namespace inpaint_fast
