// How the CPU's work on one block is cut into tasks.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "conv_block/cpu/tilings.h"

namespace inpaint_fast {

// A task has at least the tiles that a product multiplies at a time, and at most so many times as many.
constexpr int64_t kMostTimes = 4;
// Weights of so many of a core's caches are worth sharing.
constexpr int64_t kLeastShared = 4;
// Of split numbers, two tiles of AMX are multiplied at a time.
constexpr int64_t kSplitTaskTiles = 2 * kTileRows;

// How many tiles a task should have, a multiple of what is multiplied at a time: as many as its share of a cache holds,
// and so few that each thread gets two tasks, or where each reads weights from memory, one.
inline int64_t tiles_of_task(const ConvBlock& block, int64_t tiles, int64_t threads) {
  const Blocking sizes = blocking();
  const int64_t least = block.is_split() ? kSplitTaskTiles : kTaskTiles;
  const int64_t weights = block.weight_bytes();
  if (weights <= sizes.few_weights) return least;
  const bool many = weights > sizes.many_weights;
  const int64_t fitting = (many ? sizes.task_of_many : sizes.task) / block.tile_bytes();
  const int64_t most = std::min(fitting / least, kMostTimes);
  return std::clamp(ceil_div(tiles, (many ? 1 : 2) * threads * least), int64_t{1}, std::max(most, int64_t{1})) * least;
}

// Among how many tasks the output channels of the same tiles are divided. Few tiles are not divided among the threads:
// each would read all weights for a few of them.
inline int64_t shares_of_channels(const ConvBlock& block, int64_t tiles, int64_t threads) {
  const bool few = tiles <= kTaskTiles && block.weight_bytes() > kLeastShared * blocking().few_weights;
  return few ? std::min(threads, block.blocks()) : 1;
}

// The tiles of one tiling in tasks: `wish` tiles each, a multiple of `unit`, or where rows of pixels are laid out anew
// (`by_rows`) whole tile rows, or pieces of one that begin at a whole cache line of pixels.
class Pieces {
 public:
  Pieces(const Tiling& tiling, int64_t wish, int64_t unit, bool by_rows, int64_t threads) {
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

// One tiling of a block, and its tasks: pieces times shares.
struct Part {
  ConvBlock args;
  Pieces pieces;
  int64_t shares;  // of the output channels
};

inline std::vector<Part> parts_of(const ConvBlock& block) {
  const int64_t threads = torch::stable::get_num_threads(), unit = block.is_split() ? kTileRows : 1;
  const bool by_rows = block.input.of_channel != 1 || block.output.of_channel != 1;
  std::vector<Part> parts;
  for (const Tiling& tiling : tilings_of(block.tiling)) {
    if (tiling.tiles() == 0) continue;
    const int64_t wish = tiles_of_task(block, tiling.tiles(), threads);
    const int64_t shares = shares_of_channels(block, tiling.tiles(), threads);
    parts.push_back({block, Pieces(tiling, wish, unit, by_rows, shares > 1 ? 1 : threads), shares});
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
      const auto& [args, pieces, shares] = parts_[part];
      const int64_t numbers = args.tiling.rows.numbers() * args.tiling.columns.numbers(), blocks = args.blocks();
      for (int64_t i = 0; i < pieces.count() * shares; ++i) {
        const int64_t piece = i / shares, share = i % shares;
        const Task task = {pieces.begin(piece), pieces.begin(piece + 1), blocks * share / shares,
                           blocks * (share + 1) / shares};
        tasks_.push_back({part, task, numbers * (task.end - task.begin) * (task.last - task.first)});
      }
    }
    std::stable_sort(tasks_.begin(), tasks_.end(), [](const Of& a, const Of& b) { return a.cost > b.cost; });
  }
  int64_t workspace() const { return workspace_floats(parts_); }
  int64_t count() const { return static_cast<int64_t>(tasks_.size()); }
  // run(args, task) for one after the other, until none is left; `next` counts those that were taken.
  template <class Run>
  void run(std::atomic<int64_t>& next, const Run& run) const {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count();)
      run(parts_[tasks_[i].part].args, tasks_[i].task);
  }

 private:
  struct Of {
    size_t part;
    Task task;
    int64_t cost;
  };
  std::vector<Part> parts_;
  std::vector<Of> tasks_;
};

}  // namespace inpaint_fast
