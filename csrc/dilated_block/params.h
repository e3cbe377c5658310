// What the Winograd kernels of dilated_block compute, told in numbers and pointers. float32 throughout.
//
// A convolution of dilation d is d*d undilated ones, each on the pixels whose row and column have the same remainders
// by d. So a tile is 4x4 output pixels d apart, and its patch the 6x6 input pixels d apart that they need. With the
// matrices of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.3:
//
//     output = A^T [ (G weight G^T) * (B^T patch B) ] A,   the product summed over the input channels
//
// which takes 36 multiplications a tile and channel pair where the definition takes 144.
#pragma once

#include <stdint.h>

#include "common/activation_kind.h"
#include "common/cpu_capability.h"

namespace inpaint_fast {

constexpr int kSpectrum = 36;  // 6x6 numbers stand for a tile, a patch and a weight
constexpr int kPanel = 16;     // input channels that lie together in a transformed patch
constexpr int kColumns = 32;   // output channels that lie together in a transformed weight

inline constexpr int64_t round_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

// A picture stack in memory: sizes and strides in elements. channel == 1 is channels_last.
struct Pictures {
  float* data = nullptr;
  int64_t channels = 0, height = 0, width = 0;
  int64_t of_image = 0, of_channel = 0, of_row = 0, of_column = 0;  // strides
};

// Which of the 3x3 taps may be other than zero: rows [row, row + taps) and as many columns from `column` on. Without
// the first or the last tap in a direction, the first or the last of the 6 numbers is zero in that direction. The
// defaults are a whole weight.
struct Support {
  int row = 0, column = 0, taps = 3;
  int side() const { return taps + 3; }  // of the numbers that are not always zero: rows [row, row + side()) of the 6
  bool has_tap(int r, int c) const { return r >= row && r < row + taps && c >= column && c < column + taps; }
  bool has(int k) const {
    const int r = k / 6, c = k % 6;
    return r >= row && r < row + side() && c >= column && c < column + side();
  }
};

// How the output pixels of N pictures are cut into tiles, and in which order: picture, tile row, tile; tiles of
// neighbouring columns follow one another.
struct Tiling {
  int64_t images = 0, height = 0, width = 0;  // of the output
  int64_t dilation_h = 1, dilation_w = 1, padding_h = 0, padding_w = 0;
  int64_t rows = 0, per_row = 0;  // tile rows, tiles in a row

  // Tiles along a side: d start in every full period of 4d pixels, one at each of the first d pixels of a part of one.
  static int64_t along(int64_t side, int64_t dilation) {
    const int64_t period = 4 * dilation, rest = side % period;
    return side / period * dilation + (rest < dilation ? rest : dilation);
  }
  // The first output pixel of tile `index` along a side.
  static int64_t origin(int64_t index, int64_t dilation) { return index / dilation * 4 * dilation + index % dilation; }
  void cut() { rows = along(height, dilation_h), per_row = along(width, dilation_w); }
  int64_t tiles() const { return images * rows * per_row; }
  // No run of so many tiles reads more columns than this, whatever the width of the pictures.
  int64_t window(int64_t run) const { return 4 * run + 10 * dilation_w; }
};

// A transposed convolution of stride 2 with 4x4 taps and padding 1 is four convolutions of the input, one for the
// output pixels of each parity, with 2x2 taps each. Its tiles are of output pixels of one parity.
constexpr int kParities = 4;
inline Support support_of(int parities, int parity) {
  return parities == 1 ? Support{} : Support{parity / 2, parity % 2, 2};
}
inline Pictures pixels_of(Pictures pictures, int parities, int parity) {
  if (parities == 1) return pictures;
  pictures.data += parity / 2 * pictures.of_row + parity % 2 * pictures.of_column;
  pictures.height /= 2, pictures.width /= 2;
  pictures.of_row *= 2, pictures.of_column *= 2;
  return pictures;
}

// y = scale_after * activation(scale_before * convolution + shift_before) + shift_after, for each output channel.
enum EpilogueRow : int { kScaleBefore = 0, kShiftBefore, kScaleAfter, kShiftAfter, kEpilogueRows };

struct DilatedBlock {
  Tiling tiling;
  Pictures input, output;
  int parities = 1;  // or kParities, for a transposed convolution
  // Transformed: [parities][output channels / 32][side * side][input channels][32], side * side being 36 or 25.
  const float* weights = nullptr;
  const float* epilogue = nullptr;  // [kEpilogueRows][output channels, rounded up to 32]
  const float* zeros = nullptr;     // as many as input channels, rounded up to 16
  Activation activation = Activation::none;
  float slope = 0;
  int64_t task_tiles = 0;  // the most tiles of one call

  // Transformed patches, products, and rows of pixels on their way between the layouts: what one task needs, in floats.
  int64_t patch_floats() const { return kSpectrum * (round_up(input.channels, kPanel) * task_tiles + kPanel); }
  int64_t product_floats() const { return kSpectrum * (kColumns * task_tiles + kPanel); }
  int64_t workspace_floats() const {
    return patch_floats() + product_floats() + tiling.window(task_tiles) * 4 * kColumns;  // 4 x 32 > 6 x 16
  }
};

// weight(out, in, row, column) at data + out * of_out + in * of_in + row * of_row + column * of_column; taps outside
// the support are zeros. Swapped and negative strides give the weights of the data gradient.
struct Weights {
  float* data = nullptr;
  int64_t out_channels = 0, in_channels = 0;
  int64_t of_out = 0, of_in = 0, of_row = 0, of_column = 0;
  int parities = 1;  // or kParities: the strides are those of the first
  Support support;
  int64_t blocks() const { return round_up(out_channels, kColumns) / kColumns; }
  int64_t transformed_floats() const {
    const int64_t side = support_of(parities, 0).side();
    return parities * blocks() * side * side * in_channels * kColumns;
  }
  Weights of_parity(int64_t parity) const {
    Weights weights = *this;
    weights.support = support_of(parities, static_cast<int>(parity));
    weights.data -= parity / 2 * of_row / 2 + parity % 2 * of_column / 2;  // from tap 3 - 2r on to tap 3 + a - 2r
    return weights;
  }
};

// The gradient of the weights, in the Winograd domain: for each of the 36, patches^T times gradient tiles, over chunks
// of tiles small enough for a last-level cache; transformed back once.
struct WeightGradient {
  Tiling tiling;
  Pictures input, grad;          // grad: of the output
  const float* zeros = nullptr;  // as many as the most channels of the two, rounded up to 16
  float* patches = nullptr;      // [36][input channels / 16][chunk][16]
  float* grad_tiles = nullptr;   // [36][output channels / 32][chunk][32]
  float* sums = nullptr;         // [36][output channels / 32][input channels, rounded up to 16][32]
  int64_t chunk = 0;             // tiles
  int64_t begin = 0, end = 0;    // tiles of this chunk
  int64_t panels() const { return round_up(input.channels, kPanel) / kPanel; }
  int64_t blocks() const { return round_up(grad.channels, kColumns) / kColumns; }
  int64_t patch_floats() const { return kSpectrum * (panels() * kPanel * chunk + kPanel); }
  int64_t grad_tile_floats() const { return kSpectrum * (blocks() * kColumns * chunk + kPanel); }
  int64_t sum_floats() const { return kSpectrum * blocks() * panels() * kPanel * kColumns; }
  int64_t workspace_floats(int64_t tiles) const { return 6 * kPanel * tiling.window(tiles); }
};

// Tiles [begin, end) of a block, in a workspace of workspace_floats().
INPAINT_FAST_DECLARE_CPU_KERNEL(void dilated_block(const DilatedBlock& args, int64_t begin, int64_t end,
                                                   float* workspace))
// Blocks [begin, end) of 32 output channels of G weight G^T.
INPAINT_FAST_DECLARE_CPU_KERNEL(void transform_weights(const Weights& weights, float* transformed, int64_t begin,
                                                       int64_t end))
// Patches and gradient tiles [begin, end) of the chunk, in a workspace of workspace_floats(end - begin).
INPAINT_FAST_DECLARE_CPU_KERNEL(void gather_tiles(const WeightGradient& args, int64_t begin, int64_t end,
                                                  float* workspace))
// Adds the chunk's products to sums, for the pairs [begin, end) of (number of the 36, block of 32 output channels).
INPAINT_FAST_DECLARE_CPU_KERNEL(void add_products(const WeightGradient& args, int64_t begin, int64_t end))
// Blocks [begin, end) of 32 output channels of G^T sums G.
INPAINT_FAST_DECLARE_CPU_KERNEL(void transform_sums(const WeightGradient& args, const Weights& grad_weight,
                                                    int64_t begin, int64_t end))

}  // namespace inpaint_fast
