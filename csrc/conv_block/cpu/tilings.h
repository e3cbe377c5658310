// Which tiles cover a picture at the least cost. No torch header.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "conv_block/cpu/params.h"

namespace inpaint_fast {

// Tiles of a task, which reads all weights, however few it has.
constexpr int64_t kTaskTiles = 12;

inline int64_t saturating_tiles(const Tiling& tiling) {
  return saturating_product(saturating_product(tiling.images, tiling.rows.tiles), tiling.columns.tiles);
}

// The tilings of a picture whose products cost least: each side as a whole, its last tiles reaching over the edge, or
// in its bands. numbers(pixels): of the products along the side of a tile.
template <class Numbers>
std::vector<Tiling> cheapest_tilings(const Tiling& picture, const Numbers& numbers) {
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
          const int64_t products = numbers(rows[i].pixels) * numbers(columns[j].pixels);
          const int64_t tiles = std::max(saturating_tiles(tilings.back()), kTaskTiles);
          cost = saturating_sum(cost, saturating_product(products, tiles));
        }
      if (best.empty() || cost < least) best = tilings, least = cost;
    }
  return best;
}

inline std::vector<Tiling> tilings_of(const Tiling& picture) {
  return cheapest_tilings(picture, [](int pixels) { return int64_t{pixels} + 2; });
}

// What a convolution by Winograd's algorithm costs: tiles, and products for a pair of channels. INT64_MAX: that or
// more.
struct Cost {
  int64_t tiles = 0, products = 0;
};

// dilated: `taps` is 3, height and width are those of the result. Otherwise stride is 2, either way, and height and
// width are those of the smaller picture; of the two parities of a side both have 2 of 4 taps, or one has 2 of 3 and
// the other 1. Throws std::invalid_argument.
inline Cost winograd_cost(bool dilated, int64_t images, int64_t height, int64_t width, int64_t dilation_h,
                          int64_t dilation_w, int64_t taps) {
  if (images < 0 || height < 0 || width < 0) throw std::invalid_argument("sizes of 0 or more are expected");
  if (dilation_h < 1 || dilation_w < 1) throw std::invalid_argument("dilation: at least 1 is expected");
  if (taps != 3 && (dilated || taps != 4)) throw std::invalid_argument("taps: 3 is expected, or 4 with stride 2");
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
