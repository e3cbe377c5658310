// What the module tells about the blocks besides their operators.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/python.h"
#include "common/stage_clock.h"
#include "conv_block/cpu/tasks.h"

namespace inpaint_fast {
namespace {

std::pair<int64_t, int64_t> cost(int kind, int64_t images, int64_t height, int64_t width, int64_t dilation_h,
                                 int64_t dilation_w, int64_t taps) {
  if (kind != 0 && kind != 1) throw std::invalid_argument("kind: 0 (dilated) or 1 (stride 2) is expected");
  const Cost cost = winograd_cost(kind == 0, images, height, width, dilation_h, dilation_w, taps);
  return {cost.tiles, cost.products};
}

// Its sizes, checked; no tensors.
ConvBlock sizes_of(int64_t images, int64_t in_channels, int64_t out_channels, int64_t height, int64_t width,
                   int64_t dilation_h, int64_t dilation_w, bool channels_last, int tile) {
  constexpr int64_t kMost = int64_t{1} << 50;
  if (images < 0 || in_channels < 0 || out_channels < 0 || height < 0 || width < 0)
    throw std::invalid_argument("sizes of 0 or more are expected");
  if (dilation_h < 1 || dilation_w < 1) throw std::invalid_argument("dilation: at least 1 is expected");
  if (tile != 4 && tile != 6) throw std::invalid_argument("tile: 4 or 6 is expected");
  const int64_t pixels = saturating_product(images, saturating_product(height, width));
  if (saturating_product(pixels, std::max<int64_t>({in_channels, out_channels, 1})) > kMost ||
      std::max({in_channels, out_channels, height, width, dilation_h, dilation_w}) >= kSideLimit)
    throw std::invalid_argument("input: the sizes are too large: sides and channels below 2^28 are expected");
  ConvBlock args;
  args.tiling.tile = args.quarters.tile = tile;
  args.tiling.images = images, args.tiling.height = height, args.tiling.width = width;
  args.tiling.dilation_h = dilation_h, args.tiling.dilation_w = dilation_w;
  args.input.channels = in_channels, args.output.channels = out_channels;
  args.input.of_channel = args.output.of_channel = channels_last ? 1 : height * width;
  return args;
}

int64_t workspace_bytes(int64_t images, int64_t in_channels, int64_t out_channels, int64_t height, int64_t width,
                        int64_t dilation_h, int64_t dilation_w, bool channels_last, int tile, bool split) {
  ConvBlock args =
      sizes_of(images, in_channels, out_channels, height, width, dilation_h, dilation_w, channels_last, tile);
  if (split) args.multiply_split = multiply_by_stand_in;
  return 4 * workspace_floats(parts_of(args));
}

std::vector<std::tuple<int64_t, int64_t, int64_t, int, int>> tasks(int64_t images, int64_t in_channels,
                                                                   int64_t out_channels, int64_t height, int64_t width,
                                                                   int64_t dilation_h, int64_t dilation_w,
                                                                   bool channels_last, int tile) {
  std::vector<std::tuple<int64_t, int64_t, int64_t, int, int>> all;
  for (const auto& [args, pieces, shares] : parts_of(
           sizes_of(images, in_channels, out_channels, height, width, dilation_h, dilation_w, channels_last, tile))) {
    const Tiling& tiling = args.tiling;
    all.emplace_back(pieces.count() * shares, shares, tiling.tiles(), tiling.rows.pixels, tiling.columns.pixels);
  }
  return all;
}

pybind11::dict stage_times() {
  pybind11::dict times;
  for (int stage = 0; stage < kStages; ++stage) {
    const StageTime time = time_of(static_cast<Stage>(stage));
    times[kStageNames[stage]] = std::pair(time.nanoseconds, time.times);
  }
  return times;
}

int tile(int64_t images, int64_t in_channels, int64_t out_channels, int64_t height, int64_t width, int64_t dilation_h,
         int64_t dilation_w, bool channels_last, bool kept) {
  // Checks, besides; a dilation larger than a side leaves one pixel a phase.
  winograd_cost(true, images, height, width, dilation_h, dilation_w, 3);
  Tiling picture;
  picture.images = images, picture.height = height, picture.width = width;
  picture.dilation_h = std::min(dilation_h, std::max<int64_t>(height, 1));
  picture.dilation_w = std::min(dilation_w, std::max<int64_t>(width, 1));
  return tile_of(picture, in_channels, out_channels, channels_last, kept);
}

void force_tile(int tile) {
  if (tile != 0 && tile != 4 && tile != 6) throw std::invalid_argument("tile: 4, 6 or 0 is expected");
  forced_tile.store(tile);
}

std::map<std::string, int64_t> sizes_of_work() {
  const Blocking sizes = blocking();
  return {{"few_weights", sizes.few_weights},
          {"task", sizes.task},
          {"task_of_many", sizes.task_of_many},
          {"many_weights", sizes.many_weights},
          {"chunk", sizes.chunk}};
}

void set_caches(int64_t core, int64_t last) {
  constexpr int64_t kMost = int64_t{1} << 40;
  if (core < 1 || core > kMost || last < 1 || last > kMost)
    throw std::invalid_argument("core, last: bytes from 1 to 2^40 are expected");
  core_cache.store(core), last_cache.store(last);
}

const FunctionsOfModule functions_of_blocks([](pybind11::module_& m) {
  m.def(
      "winograd_cost", &cost, pybind11::arg("kind"), pybind11::arg("images"), pybind11::arg("height"),
      pybind11::arg("width"), pybind11::arg("dilation_h"), pybind11::arg("dilation_w"), pybind11::arg("taps"),
      "(tiles, products for a pair of channels) of Winograd's algorithm, each at most 2^63 - 1. kind 0: a convolution "
      "of any dilation with a result of these sides; 1: one of stride 2, either way, whose smaller picture has them.");
  m.def(
      "dilated_block_workspace",
      [](int64_t images, int64_t in_channels, int64_t out_channels, int64_t height, int64_t width, int64_t dilation_h,
         int64_t dilation_w, bool channels_last) {
        return workspace_bytes(images, in_channels, out_channels, height, width, dilation_h, dilation_w, channels_last,
                               4, false);
      },
      "Bytes that one thread needs for an output of (images, out_channels, height, width).");
  m.def("dilated_block_workspace", &workspace_bytes, "The same in tiles of 4 or 6 pixels; split: for products on AMX.");
  m.def(
      "winograd_tile", &tile,
      "Of a convolution of any dilation with a result of these sides: 4, F(4x4, 3x3), or 6, F(6x6, 3x3), which is the "
      "faster one. channels_last: its input and its result are; kept: its weights are transformed already.");
  m.def("winograd_tasks", &tasks,
        "Of such a block in tiles of 4 or 6 pixels: (tasks, shares, tiles, rows, columns) for each kind of tile, which "
        "has so many rows and columns of pixels. So many tasks share the output channels of the same tiles, and "
        "together read all weights once.");
  m.def("blocking", &sizes_of_work, "Name -> bytes of what the kernels read again and again, for the caches in use.");
  m.def("set_caches", &set_caches, pybind11::arg("core"), pybind11::arg("last"),
        "Bytes of a core's last own data cache and of the one that cores share: the kernels cut their work to them.");
  m.def("run_stage_clock", &run_stage_clock, pybind11::arg("run"),
        "For benchmarks: from now on the stages of the blocks are timed, or no longer.");
  m.def("stage_times", &stage_times,
        "Name of a stage -> (nanoseconds of all threads together, how often it has ended), while the clock ran.");
  m.def("force_winograd_tile", &force_tile, "For tests: 4 or 6, whatever the convolution; 0: which is faster.");
});

}  // namespace
}  // namespace inpaint_fast
