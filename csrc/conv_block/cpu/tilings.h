// Which tiles cover a picture at the least cost. No torch header.
#pragma once

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "conv_block/cpu/blocking.h"
#include "conv_block/cpu/params.h"

namespace inpaint_fast {

// Tiles that a product multiplies at a time: fewer cost as much, for they read as many weights.
constexpr int64_t kTaskTiles = 12;

inline int64_t saturating_tiles(const Tiling& tiling) {
  return saturating_product(saturating_product(tiling.images, tiling.rows.tiles), tiling.columns.tiles);
}

// Products along the side of a tile, each times as many: what tilings cost.
template <class Numbers>
int64_t cost_of(const std::vector<Tiling>& tilings, const Numbers& numbers) {
  int64_t cost = 0;
  for (const Tiling& tiling : tilings) {
    const int64_t products = numbers(tiling.rows.pixels) * numbers(tiling.columns.pixels);
    cost = saturating_sum(cost, saturating_product(products, std::max(saturating_tiles(tiling), kTaskTiles)));
  }
  return cost;
}

// The tilings of a picture whose products cost least: each side as a whole, its last tiles reaching over the edge, or
// in its bands. numbers(pixels): of the products along the side of a tile.
template <class Numbers>
std::vector<Tiling> cheapest_tilings(const Tiling& picture, const Numbers& numbers) {
  std::vector<Tiling> best;
  int64_t least = 0;
  for (const bool cut_rows : {false, true})
    for (const bool cut_columns : {false, true}) {
      const int tile = picture.tile;
      Band rows[kMostBands] = {Tiling::along(picture.height, picture.dilation_h, tile)},
           columns[kMostBands] = {Tiling::along(picture.width, picture.dilation_w, tile)};
      const int row_bands = cut_rows ? Tiling::cut(picture.height, picture.dilation_h, tile, rows) : 1;
      const int column_bands = cut_columns ? Tiling::cut(picture.width, picture.dilation_w, tile, columns) : 1;
      std::vector<Tiling> tilings;
      for (int i = 0; i < row_bands; ++i)
        for (int j = 0; j < column_bands; ++j) {
          tilings.push_back(picture);
          tilings.back().rows = rows[i], tilings.back().columns = columns[j];
        }
      const int64_t cost = cost_of(tilings, numbers);
      if (best.empty() || cost < least) best = tilings, least = cost;
    }
  return best;
}

inline int64_t of_stride_1(int pixels) { return pixels + 2; }

inline std::vector<Tiling> tilings_of(const Tiling& picture) { return cheapest_tilings(picture, of_stride_1); }

// Which tile a convolution of stride 1 is run in, where no test says it: 4 or 6.
inline std::atomic<int> forced_tile{0};

// The tile of `picture`, the result of a convolution. 6 where it needs so many times fewer products (at best 1.27) that
// it is the faster one: of pictures whose channels lie together, for rows of 6 pixels are slow to lay out anew; with
// transformed weights that a last-level cache holds, for it has 1.8 times as many; with tiles that pay for reading
// them, and where they are not `kept`, for transforming them. Beyond 512 channels its sums would round by more than
// 1e-5.
constexpr double kLeastGain = 1.14;
constexpr int64_t kLeastChannels = 64, kMostChannels = 512, kLeastTiles = 192, kLeastUnkept = 768;  // of 4x4 pixels

inline int tile_of(Tiling picture, int64_t in_channels, int64_t out_channels, bool channels_last, bool kept) {
  if (const int forced = forced_tile.load()) return forced;
  if (!channels_last || std::min(in_channels, out_channels) < kLeastChannels) return 4;
  if (std::max(in_channels, out_channels) > kMostChannels) return 4;
  if (spectrum_of(6) * 4 * in_channels * out_channels > blocking().many_weights) return 4;
  const std::vector<Tiling> of_4 = tilings_of(picture);
  int64_t tiles = 0;
  for (const Tiling& tiling : of_4) tiles = saturating_sum(tiles, saturating_tiles(tiling));
  if (tiles < (kept ? kLeastTiles : kLeastUnkept)) return 4;
  picture.tile = 6;
  const int64_t cost = cost_of(tilings_of(picture), of_stride_1);
  return kLeastGain * cost <= cost_of(of_4, of_stride_1) ? 6 : 4;
}

// What a convolution by Winograd's algorithm costs: tiles, and products for a pair of channels. INT64_MAX: that or
// more.
struct Cost {
  int64_t tiles = 0, products = 0;
};

// dilated: `taps` is 3, height and width are those of the result. Otherwise stride is 2, either way, and height and
// width are those of the smaller picture; the two parities of a side share its taps, and p pixels of t taps need
// p + t - 1 numbers. Throws std::invalid_argument.
inline Cost winograd_cost(bool dilated, int64_t images, int64_t height, int64_t width, int64_t dilation_h,
                          int64_t dilation_w, int64_t taps) {
  if (images < 0 || height < 0 || width < 0) throw std::invalid_argument("sizes of 0 or more are expected");
  if (dilation_h < 1 || dilation_w < 1) throw std::invalid_argument("dilation: at least 1 is expected");
  if (taps < 3 || taps > (dilated ? 3 : 5)) throw std::invalid_argument("taps: 3 is expected, or 4 or 5 with stride 2");
  constexpr int64_t kMost = int64_t{1} << 60;  // times 4 it still fits
  if (height > kMost || width > kMost) throw std::invalid_argument("height, width: at most 2^60 are expected");
  Tiling picture;
  picture.images = images, picture.height = height, picture.width = width;
  // A larger one leaves as many tiles: one a pixel.
  picture.dilation_h = std::min(dilation_h, std::max<int64_t>(height, 1));
  picture.dilation_w = std::min(dilation_w, std::max<int64_t>(width, 1));
  const auto numbers = [&](int pixels) { return dilated ? pixels + 2 : 2 * pixels + taps - 2; };
  Cost cost;
  for (const Tiling& tiling : cheapest_tilings(picture, numbers)) {
    const int64_t tiles = saturating_tiles(tiling);
    const int64_t products = numbers(tiling.rows.pixels) * numbers(tiling.columns.pixels);
    cost.tiles = saturating_sum(cost.tiles, tiles);
    cost.products = saturating_sum(cost.products, saturating_product(tiles, products));
  }
  return cost;
}

}  // namespace inpaint_fast
