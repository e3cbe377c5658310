// Tiles of pixels, from pictures of either layout and back.
#pragma once

#include "conv_block/cpu/winograd.h"

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {
namespace {

// A tile's place: its picture, tile row and number in that row, and its first output pixel.
struct Tile {
  int64_t image, row, number, y, x;
  Tile(const Tiling& tiling, int64_t index)
      : image(index / (tiling.rows.tiles * tiling.columns.tiles)),
        row(tiling.rows.first + index / tiling.columns.tiles % tiling.rows.tiles),
        number(tiling.columns.first + index % tiling.columns.tiles),
        y(tiling.origin(row, tiling.dilation_h)),
        x(tiling.origin(number, tiling.dilation_w)) {}
};

// The end of the run of tiles from `begin` that lie in one tile row, at most `end`. The first tile of a run begins
// leftmost, the last one ends rightmost.
int64_t end_of_run(const Tiling& tiling, int64_t begin, int64_t end) {
  const int64_t end_of_row = (begin / tiling.columns.tiles + 1) * tiling.columns.tiles;
  return end_of_row < end ? end_of_row : end;
}

int64_t clipped(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

// Hands out the kSide x kSide pixels of every tile, panel after panel of 16 channels: the pixels `dilation` apart from
// the tile's first one, less the padding. Pixels and channels that are not there are zeros.
template <int kSide>
struct TileReader {
  const Tiling& tiling;
  const Pictures& pictures;
  const int64_t padding_h, padding_w;
  const float* const zeros;
  float* const rows;  // room for kSide rows of a run's window, 16 channels a pixel

  // Calls use(tile, panel, pixels) for the tiles [begin, end); pixels[kSide * i + j] points to 16 channels.
  template <class Use>
  void read(int64_t begin, int64_t end, const Use& use) const {
    if (pictures.of_channel == 1 || pictures.channels == 1) return read_channels_last(begin, end, use);
    for (int64_t last; begin < end; begin = last) {
      last = end_of_run(tiling, begin, end);
      read_run(begin, last, use);
    }
  }

 private:
  bool inside(int64_t y, int64_t x) const { return y >= 0 && y < pictures.height && x >= 0 && x < pictures.width; }

  template <class Use>
  void read_channels_last(int64_t begin, int64_t end, const Use& use) const {
    const int64_t whole = pictures.channels / kPanel, rest = pictures.channels % kPanel;
    const float *first[kSide * kSide], *pixels[kSide * kSide];
    for (int64_t index = begin; index < end; ++index) {
      const Tile tile(tiling, index);
      const float* const image = pictures.floats() + tile.image * pictures.of_image;
      for (int i = 0; i < kSide; ++i)
        for (int j = 0; j < kSide; ++j) {
          const int64_t y = tile.y - padding_h + i * tiling.dilation_h, x = tile.x - padding_w + j * tiling.dilation_w;
          first[i * kSide + j] = inside(y, x) ? image + y * pictures.of_row + x * pictures.of_column : zeros;
        }
      for (int64_t panel = 0; panel < whole; ++panel) {
        for (int k = 0; k < kSide * kSide; ++k) pixels[k] = first[k] + panel * kPanel;
        use(index, panel, pixels);
      }
      if (rest == 0) continue;
      for (int k = 0; k < kSide * kSide; ++k) {  // copied: a whole vector could end behind the last picture
        float* const copy = rows + k * kPanel;
        for (int64_t c = 0; c < kPanel; ++c) copy[c] = c < rest ? first[k][whole * kPanel + c] : 0;
        pixels[k] = copy;
      }
      use(index, whole, pixels);
    }
  }

  // Channels far apart: the rows that the run reads are laid out anew, a panel at a time.
  template <class Use>
  void read_run(int64_t begin, int64_t end, const Use& use) const {
    const Tile tile(tiling, begin);
    const int64_t left = tile.x - padding_w;
    const int64_t right = Tile(tiling, end - 1).x - padding_w + (kSide - 1) * tiling.dilation_w + 1;
    const int64_t from = clipped(left, 0, pictures.width), to = clipped(right, from, pictures.width);
    const float* pixels[kSide * kSide];
    for (int64_t panel = 0; panel * kPanel < pictures.channels; ++panel) {
      const int64_t channels = clipped(pictures.channels - panel * kPanel, 0, kPanel);
      for (int i = 0; i < kSide; ++i) {
        const int64_t y = tile.y - padding_h + i * tiling.dilation_h;
        if (y < 0 || y >= pictures.height) continue;
        float* const row = rows + (i * (right - left) + from - left) * kPanel;
        if (channels < kPanel) memset(row, 0, sizeof(float) * (to - from) * kPanel);
        transpose_copy(pictures.floats() + tile.image * pictures.of_image + panel * kPanel * pictures.of_channel +
                           y * pictures.of_row + from * pictures.of_column,
                       pictures.of_channel, pictures.of_column, row, 1, kPanel, channels, to - from);
      }
      for (int64_t index = begin; index < end; ++index) {
        const int64_t start = Tile(tiling, index).x - padding_w;
        for (int i = 0; i < kSide; ++i)
          for (int j = 0; j < kSide; ++j) {
            const int64_t y = tile.y - padding_h + i * tiling.dilation_h, x = start + j * tiling.dilation_w;
            pixels[i * kSide + j] = inside(y, x) ? rows + (i * (right - left) + x - left) * kPanel : zeros;
          }
        use(index, panel, pixels);
      }
    }
  }
};

// Where the pixels of a run's tiles go, for one block of 32 output channels: straight into pictures whose channels
// lie together, else by way of a tile's rows of a window.
class TileWriter {
 public:
  TileWriter(const Tiling& tiling, const Pictures& pictures, int64_t block, int64_t begin, int64_t end, float* rows)
      : tiling_(tiling), pictures_(pictures), end_(end), tile_(tiling, begin) {
    channels_ = clipped(pictures.channels - block * kColumns, 0, kColumns);
    to_ = pictures.floats() + tile_.image * pictures.of_image + block * kColumns * pictures.of_channel +
          tile_.y * pictures.of_row;
    direct_ = pictures.of_channel == 1 && channels_ == kColumns;
    window_ = Tile(tiling, end - 1).x + (tiling.tile - 1) * tiling.dilation_w + 1 - tile_.x;
    rows_ = direct_ ? to_ + tile_.x * pictures.of_column : rows;
    of_row = direct_ ? pictures.of_row * tiling.dilation_h : window_ * kColumns;
    of_column = direct_ ? pictures.of_column : kColumns;
  }

  // The place of a tile's first pixel; its others are of_row apart and dilation_w * of_column.
  float* place(const Tile& tile) const { return rows_ + (tile.x - tile_.x) * of_column; }
  int64_t of_row, of_column;

  // To be called when every tile of the run is written.
  void finish() const {
    if (direct_) return;
    const int64_t first = tile_.number, last = Tile(tiling_, end_ - 1).number,
                  period = tiling_.tile * tiling_.dilation_w;
    const int64_t right = clipped(tile_.x + window_, 0, tiling_.width);
    const auto ours = [&](int64_t x) {  // pixels of other runs' tiles may lie between ours
      const int64_t number = x / period * tiling_.dilation_w + x % tiling_.dilation_w;
      return number >= first && number <= last;
    };
    for (int64_t from = tile_.x, to; from < right; from = to) {
      const bool copy = ours(from);
      for (to = from + 1; to < right && ours(to) == copy; ++to) {
      }
      for (int64_t i = 0; copy && i < tiling_.tile && tile_.y + i * tiling_.dilation_h < tiling_.height; ++i)
        transpose_copy(rows_ + i * of_row + (from - tile_.x) * kColumns, kColumns, 1,
                       to_ + i * tiling_.dilation_h * pictures_.of_row + from * pictures_.of_column,
                       pictures_.of_column, pictures_.of_channel, to - from, channels_);
    }
  }

 private:
  const Tiling& tiling_;
  const Pictures& pictures_;
  const int64_t end_;
  const Tile tile_;
  int64_t channels_, window_;
  float *to_, *rows_;
  bool direct_;
};

}  // namespace
}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
