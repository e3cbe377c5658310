// What the bindings hand to a kernel of norm_act: plain data, no torch header. For each channel
//
//   u = input, or act(input) where the activation comes first
//   z = scale * (u - shift) + offset,  scale = weight / std,  shift = the mean as input's type can hold it
//   y = act(z), or z where the activation came first
//
// and for the gradient, with g = d loss / d z,
//
//   d loss / d u = by_grad * g + by_value * (u - shift) + constant
//
// whose last two terms are those of the batch's own statistics, in training alone.
#pragma once

#include "common/cpu_capability.h"
#include "common/integers.h"
#include "common/scalar_kind.h"
#include "common/words.h"

namespace inpaint_fast {

// Elements of one task in planes, pixels and channels of one task in rows: fixed, so that a sum never depends on the
// number of threads.
constexpr int64_t kNormActElements = 16384;
constexpr int64_t kNormActPixels = 256;
constexpr int64_t kNormActChannels = 256;

enum class NormActStep : int { moments, forward, sums, backward };

// A part of every index range, the work of one task.
struct NormActChunk {
  int64_t sample_begin, sample_end, channel_begin, channel_end, pixel_begin, pixel_end;
  // Values of each channel.
  int64_t count() const { return (sample_end - sample_begin) * (pixel_end - pixel_begin); }
};

struct NormAct {
  // false: memory is (samples, channels, pixels), each channel of a sample a plane; true: it is (pixels, channels), the
  // channels of a pixel a row, and samples is 1.
  bool rows = false;
  int64_t samples = 0, channels = 0, pixels = 0;
  ScalarKind kind = ScalarKind::none;  // of input, grad and output
  const void* input = nullptr;
  const void* grad = nullptr;  // d loss / d y
  void* output = nullptr;      // forward: y; backward: d loss / d input
  Activation activation = Activation::none;
  double slope = 0;
  Order order = Order::norm_act;
  bool training = false;
  bool stream = false;  // the output is larger than the caches: write past them
  // Of each channel.
  const double *shift = nullptr, *scale = nullptr, *offset = nullptr;
  const double *by_grad = nullptr, *by_value = nullptr, *constant = nullptr;

  int64_t samples_of_part() const { return pixels < kNormActElements ? kNormActElements / pixels : 1; }
  int64_t pixels_of_part() const { return rows ? kNormActPixels : kNormActElements; }
  // Every channel's values in `parts` parts, the channels in `groups` groups: parts * groups chunks.
  int64_t parts() const { return ceil_div(samples, samples_of_part()) * ceil_div(pixels, pixels_of_part()); }
  int64_t groups() const { return rows ? ceil_div(channels, kNormActChannels) : channels; }
  NormActChunk chunk(int64_t part, int64_t group) const {
    const auto smaller = [](int64_t a, int64_t b) { return a < b ? a : b; };
    const int64_t pieces = ceil_div(pixels, pixels_of_part()), width = rows ? kNormActChannels : 1;
    NormActChunk c;
    c.sample_begin = part / pieces * samples_of_part();
    c.sample_end = smaller(c.sample_begin + samples_of_part(), samples);
    c.channel_begin = group * width;
    c.channel_end = smaller(c.channel_begin + width, channels);
    c.pixel_begin = part % pieces * pixels_of_part();
    c.pixel_end = smaller(c.pixel_begin + pixels_of_part(), pixels);
    return c;
  }
};

// One step over one chunk. first and second take a number for each of its channels:
//   moments  the mean of u, the sum of (u - mean)^2
//   sums     the sum of g, the sum of g * (u - shift)
// The other steps write output and leave them alone.
INPAINT_FAST_DECLARE_CPU_KERNEL(void norm_act_chunk(const NormAct& args, NormActStep step, const NormActChunk& chunk,
                                                    double* first, double* second))

}  // namespace inpaint_fast
