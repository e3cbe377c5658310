// How the CPU's work on one dilated_block is cut into tasks.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "dilated_block/params.h"

namespace inpaint_fast {

// Tiles of a task: so many that its transformed patches stay in a core's cache, and 4 times as many when the
// transformed weights, which every task reads through, are too large for the last-level cache.
constexpr int64_t kTaskTiles = 12, kManyTaskTiles = 48;
constexpr int64_t kManyWeights = int64_t{16} << 20, kMostPatches = int64_t{4} << 20;  // bytes

// The tiles of every task: `wish` of them, or where rows of pixels are laid out anew (`by_rows`) whole tile rows, or
// pieces of one that begin at a whole cache line of pixels.
class Tasks {
 public:
  // Sets args.task_tiles.
  explicit Tasks(DilatedBlock& args) {
    const int64_t patch_bytes = kSpectrum * 4 * round_up(args.input.channels, kPanel);
    const bool many_weights = patch_bytes * round_up(args.output.channels, kColumns) > kManyWeights;
    cut(args.tiling, many_weights ? std::clamp(kMostPatches / patch_bytes, kTaskTiles, kManyTaskTiles) : kTaskTiles,
        args.input.of_channel != 1 || args.output.of_channel != 1);
    for (int64_t task = 0; task < count(); ++task)
      args.task_tiles = std::max(args.task_tiles, begin(task + 1) - begin(task));
  }
  int64_t count() const { return groups_ * pieces_; }
  // The first tile of a task; that of the one after the last is the number of tiles.
  int64_t begin(int64_t task) const {
    const int64_t row = rows_ * (task / pieces_) / groups_, piece = task % pieces_;
    return row * per_row_ + per_row_ * piece / pieces_ / unit_ * unit_;
  }

 private:
  void cut(const Tiling& tiling, int64_t wish, bool by_rows) {
    const int64_t threads = torch::stable::get_num_threads();
    if (!by_rows) {
      per_row_ = tiling.tiles();
      pieces_ = std::min(round_up((per_row_ + wish - 1) / wish, threads), per_row_);
      return;
    }
    per_row_ = tiling.per_row, rows_ = tiling.images * tiling.rows;
    // 16 pixels are a line; the tiles of one period of 4 dilations lie interleaved.
    unit_ = tiling.dilation_w < 4 && kUnit % tiling.dilation_w == 0 ? kUnit : tiling.dilation_w;
    pieces_ = std::max((per_row_ + wish / 2) / wish, (threads + rows_ - 1) / rows_);
    pieces_ = std::clamp(pieces_, int64_t{1}, (per_row_ + unit_ - 1) / unit_);
    groups_ = rows_;
    if (pieces_ == 1) {
      const int64_t together = std::max(wish / per_row_, int64_t{1});
      groups_ = std::min(round_up((rows_ + together - 1) / together, threads), rows_);
    }
  }
  static constexpr int64_t kUnit = 4;
  int64_t per_row_, rows_ = 1, unit_ = 1;
  int64_t pieces_ = 1, groups_ = 1;  // of a row, of rows
};

}  // namespace inpaint_fast
