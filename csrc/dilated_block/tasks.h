// How the CPU's work on one dilated_block is cut into tasks.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "dilated_block/params.h"

namespace inpaint_fast {

// Tiles of a task: so many that its transformed patches stay in a core's cache, and 4 times as many when the
// transformed weights, which every task reads through, are too large for the last-level cache.
constexpr int64_t kTaskTiles = 12, kManyTaskTiles = 48;
constexpr int64_t kManyWeights = int64_t{16} << 20, kMostPatches = int64_t{4} << 20;  // bytes

// The tiles of one tiling in tasks: `wish` tiles each, or where rows of pixels are laid out anew (`by_rows`) whole tile
// rows, or pieces of one that begin at a whole cache line of pixels.
class Pieces {
 public:
  Pieces(const Tiling& tiling, int64_t wish, bool by_rows) {
    const int64_t threads = torch::stable::get_num_threads();
    if (!by_rows) {
      per_row_ = tiling.tiles();
      pieces_ = std::min(round_up((per_row_ + wish - 1) / wish, threads), per_row_);
      return;
    }
    per_row_ = tiling.columns.tiles, rows_ = tiling.images * tiling.rows.tiles;
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
  int64_t count() const { return groups_ * pieces_; }
  // The first tile of a task; that of the one after the last is the number of tiles.
  int64_t begin(int64_t task) const {
    const int64_t row = rows_ * (task / pieces_) / groups_, piece = task % pieces_;
    return row * per_row_ + per_row_ * piece / pieces_ / unit_ * unit_;
  }

 private:
  static constexpr int64_t kUnit = 4;
  int64_t per_row_, rows_ = 1, unit_ = 1;
  int64_t pieces_ = 1, groups_ = 1;  // of a row, of rows
};

// The tilings of a picture whose products cost least: each side as a whole, its last tiles reaching over the edge, or
// in its bands.
inline std::vector<Tiling> tilings_of(const Tiling& picture) {
  std::vector<Tiling> best;
  int64_t least = 0;
  for (const bool cut_rows : {false, true})
    for (const bool cut_columns : {false, true}) {
      Band rows[kMostBands] = {{0, Tiling::along(picture.height, picture.dilation_h)}},
           columns[kMostBands] = {{0, Tiling::along(picture.width, picture.dilation_w)}};
      const int row_bands = cut_rows ? Tiling::cut(picture.height, picture.dilation_h, rows) : 1;
      const int column_bands = cut_columns ? Tiling::cut(picture.width, picture.dilation_w, columns) : 1;
      std::vector<Tiling> tilings;
      int64_t cost = 0;
      for (int i = 0; i < row_bands; ++i)
        for (int j = 0; j < column_bands; ++j) {
          tilings.push_back(picture);
          tilings.back().rows = rows[i], tilings.back().columns = columns[j];
          // A task of few tiles still reads all weights.
          cost += rows[i].numbers() * columns[j].numbers() * std::max(tilings.back().tiles(), kTaskTiles);
        }
      if (best.empty() || cost < least) best = tilings, least = cost;
    }
  return best;
}

// All tasks of a block. `args` are those of its tilings.
class Tasks {
 public:
  explicit Tasks(const DilatedBlock& block) {
    const int64_t patch_bytes = kSpectrum * 4 * round_up(block.input.channels, kPanel);
    const bool many_weights = patch_bytes * round_up(block.output.channels, kColumns) > kManyWeights;
    const int64_t wish = many_weights ? std::clamp(kMostPatches / patch_bytes, kTaskTiles, kManyTaskTiles) : kTaskTiles;
    const bool by_rows = block.input.of_channel != 1 || block.output.of_channel != 1;
    for (const Tiling& tiling : tilings_of(block.tiling)) {
      if (tiling.tiles() == 0) continue;
      args_.push_back(block);
      args_.back().tiling = tiling;
      const Pieces pieces(tiling, wish, by_rows);
      for (int64_t i = 0; i < pieces.count(); ++i) {
        const Task task{args_.size() - 1, pieces.begin(i), pieces.begin(i + 1), cost_};
        cost_ += tiling.rows.numbers() * tiling.columns.numbers() * (task.end - task.begin);
        args_.back().task_tiles = std::max(args_.back().task_tiles, task.end - task.begin);
        tasks_.push_back(task);
      }
    }
  }
  int64_t workspace_floats() const {
    int64_t most = 0;
    for (const DilatedBlock& args : args_) most = std::max(most, args.workspace_floats());
    return most;
  }
  // What all of them cost, and run(args, begin, end) for the tasks whose share of it begins in [from, to).
  int64_t cost() const { return cost_; }
  template <class Run>
  void run(int64_t from, int64_t to, const Run& run) const {
    for (const Task& task : tasks_)
      if (task.cost_before >= from && task.cost_before < to) run(args_[task.args], task.begin, task.end);
  }

 private:
  struct Task {
    size_t args;
    int64_t begin, end, cost_before;
  };
  std::vector<DilatedBlock> args_;
  std::vector<Task> tasks_;
  int64_t cost_ = 0;
};

}  // namespace inpaint_fast
