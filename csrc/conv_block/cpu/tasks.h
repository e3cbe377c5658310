// How the CPU's work on one block is cut into tasks.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "conv_block/cpu/tilings.h"

namespace inpaint_fast {

// Tiles of a task are so many that its transformed patches stay in a core's cache, and 4 times as many when the
// transformed weights, which every task reads through, are too large for the last-level cache.
constexpr int64_t kManyTaskTiles = 48;
// Of split numbers, so many that two tiles of AMX are multiplied at a time, or twice as many.
constexpr int64_t kSplitTaskTiles = 2 * kTileRows, kManySplitTaskTiles = 2 * kSplitTaskTiles;
constexpr int64_t kMostPatches = int64_t{4} << 20;  // bytes

// The tiles of one tiling in tasks: `wish` tiles each, a multiple of `unit`, or where rows of pixels are laid out anew
// (`by_rows`) whole tile rows, or pieces of one that begin at a whole cache line of pixels.
class Pieces {
 public:
  Pieces(const Tiling& tiling, int64_t wish, int64_t unit, bool by_rows) {
    const int64_t threads = torch::stable::get_num_threads();
    if (!by_rows) {
      per_row_ = tiling.tiles(), unit_ = unit;
      pieces_ = std::min(round_up(ceil_div(per_row_, wish), threads), ceil_div(per_row_, unit_));
      return;
    }
    per_row_ = tiling.columns.tiles, rows_ = tiling.images * tiling.rows.tiles;
    // 16 pixels are a line; the tiles of one period of 4 dilations lie interleaved.
    unit_ = tiling.dilation_w < 4 && kUnit % tiling.dilation_w == 0 ? kUnit : tiling.dilation_w;
    pieces_ = std::max((per_row_ + wish / 2) / wish, ceil_div(threads, rows_));
    pieces_ = std::clamp(pieces_, int64_t{1}, ceil_div(per_row_, unit_));
    groups_ = rows_;
    if (pieces_ == 1) {
      const int64_t together = std::max(wish / per_row_, int64_t{1});
      groups_ = std::min(round_up(ceil_div(rows_, together), threads), rows_);
    }
  }
  int64_t count() const { return groups_ * pieces_; }
  // The first tile of a task; that of the one after the last is the number of tiles.
  int64_t begin(int64_t task) const {
    const int64_t row = rows_ * (task / pieces_) / groups_, piece = task % pieces_;
    return row * per_row_ + per_row_ * piece / pieces_ / unit_ * unit_;
  }

  // As many tiles as a task has, or a few more.
  int64_t most() const {
    if (pieces_ == 1) return ceil_div(rows_, groups_) * per_row_;
    const int64_t units = ceil_div(per_row_, pieces_ * unit_), before_last = per_row_ - ceil_div(per_row_, pieces_);
    return std::max(std::min(units * unit_, per_row_), per_row_ - before_last / unit_ * unit_);
  }

 private:
  static constexpr int64_t kUnit = 4;
  int64_t per_row_, rows_ = 1, unit_ = 1;
  int64_t pieces_ = 1, groups_ = 1;  // of a row, of rows
};

// One tiling of a block, and its tasks.
struct Part {
  ConvBlock args;
  Pieces pieces;
};

inline std::vector<Part> parts_of(const ConvBlock& block) {
  const int64_t patch_bytes =
      block.quarters.spectrum() * 4 * round_up(std::max<int64_t>(block.input.channels, 1), kPanel);
  const bool many_weights = patch_bytes * round_up(block.output.channels, kColumns) > kManyWeights;
  const bool split = block.is_split();
  const int64_t unit = split ? kTileRows : 1, few = split ? kSplitTaskTiles : kTaskTiles;
  const int64_t many = split ? kManySplitTaskTiles : kManyTaskTiles;
  const int64_t wish = many_weights ? std::clamp(kMostPatches / patch_bytes, few, many) / unit * unit : few;
  const bool by_rows = block.input.of_channel != 1 || block.output.of_channel != 1;
  std::vector<Part> parts;
  for (const Tiling& tiling : tilings_of(block.tiling)) {
    if (tiling.tiles() == 0) continue;
    parts.push_back({block, Pieces(tiling, wish, unit, by_rows)});
    parts.back().args.tiling = tiling;
    parts.back().args.task_tiles = parts.back().pieces.most();
  }
  return parts;
}

// Of one task after the other.
inline int64_t workspace_floats(const std::vector<Part>& parts) {
  int64_t most = 0;
  for (const Part& part : parts) most = std::max(most, part.args.workspace_floats());
  return most;
}

// All tasks of a block, the longest first: whichever thread is free takes the next one.
class Tasks {
 public:
  explicit Tasks(const ConvBlock& block) : parts_(parts_of(block)) {
    for (size_t part = 0; part < parts_.size(); ++part) {
      const Tiling& tiling = parts_[part].args.tiling;
      const Pieces& pieces = parts_[part].pieces;
      for (int64_t i = 0; i < pieces.count(); ++i) {
        const int64_t begin = pieces.begin(i), end = pieces.begin(i + 1);
        tasks_.push_back({part, begin, end, tiling.rows.numbers() * tiling.columns.numbers() * (end - begin)});
      }
    }
    std::stable_sort(tasks_.begin(), tasks_.end(), [](const Task& a, const Task& b) { return a.cost > b.cost; });
  }
  int64_t workspace() const { return workspace_floats(parts_); }
  int64_t count() const { return static_cast<int64_t>(tasks_.size()); }
  // run(args, begin, end) for one task after the other, until none is left; `next` counts those that were taken.
  template <class Run>
  void run(std::atomic<int64_t>& next, const Run& run) const {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count();)
      run(parts_[tasks_[i].part].args, tasks_[i].begin, tasks_[i].end);
  }

 private:
  struct Task {
    size_t part;
    int64_t begin, end, cost;
  };
  std::vector<Part> parts_;
  std::vector<Task> tasks_;
};

}  // namespace inpaint_fast
