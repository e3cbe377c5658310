// What the Winograd kernels of the blocks compute, told in numbers and pointers. float32 throughout.
//
// A convolution of dilation d is d*d undilated ones, each on the pixels whose row and column have the same remainders
// by d. So a tile is 4x4 output pixels d apart, and its patch the 6x6 input pixels d apart that they need. With the
// matrices of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.3:
//
//     output = A^T [ (G weight G^T) * (B^T patch B) ] A,   the product summed over the input channels
//
// which takes 36 multiplications a tile and channel pair where the definition takes 144. With tiles of 6x6 pixels and
// patches of 8x8 it takes 64 where the definition takes 324, and rounds about twice as much (winograd.h).
#pragma once

#include "common/cpu_capability.h"
#include "conv_block/cpu/amx.h"
#include "conv_block/problem.h"

namespace inpaint_fast {

constexpr int kPanel = 16;    // input channels that lie together in a transformed patch
constexpr int kColumns = 32;  // output channels that lie together in a transformed weight

// The side of whole tiles in pixels, which names the algorithm: 4 is F(4x4, 3x3), 6 is F(6x6, 3x3).
constexpr int numbers_of(int side) { return side + 2; }  // in each direction
constexpr int spectrum_of(int side) { return numbers_of(side) * numbers_of(side); }

// Which of the 3x3 taps may be other than zero: in each direction `taps` from `first` on. Without the first or the last
// tap, the first or the last of the numbers is zero in that direction. The defaults are a whole weight.
struct Support {
  struct Side {
    int first = 0, taps = 3, tile = 4;
    int numbers() const { return taps + tile - 1; }  // that are not always zero: [first, first + numbers())
    bool has_tap(int i) const { return i >= first && i < first + taps; }
    bool has(int i) const { return i >= first && i < first + numbers(); }
  };
  Side rows, columns;
  bool has_tap(int row, int column) const { return rows.has_tap(row) && columns.has_tap(column); }
  bool has(int k) const { return rows.has(k / numbers_of(rows.tile)) && columns.has(k % numbers_of(rows.tile)); }
  int count() const { return rows.numbers() * columns.numbers(); }
  int rank(int k) const {  // among those it has
    const int all = numbers_of(rows.tile);
    return (k / all - rows.first) * columns.numbers() + k % all - columns.first;
  }
};

// Tiles along a side that have the same number of output pixels there. Fewer than a whole tile's need fewer of the
// numbers: they are the values of polynomials at 0, 1, -1, 2, -2, (of 8 numbers) 1/2, -1/2 and infinity, and p pixels
// of 3 taps need p + 2 values, whichever. So the transformed weights are the same for all. Of 6 pixels, 5 count as all.
struct Band {
  int64_t first = 0, tiles = 0;
  int pixels = 4, tile = 4;
  int numbers() const { return pixels + 2; }
  bool has(int number) const { return number <= pixels || number == tile + 1; }
};
constexpr int kMostBands = 3;

// How output pixels of N pictures are cut into tiles, and in which order: picture, tile row, tile; tiles of
// neighbouring columns follow one another. The tiles are those of one band of rows and one of columns.
struct Tiling {
  int64_t images = 0, height = 0, width = 0;  // of the output
  int64_t dilation_h = 1, dilation_w = 1, padding_h = 0, padding_w = 0;
  int tile = 4;  // the side of a whole one
  Band rows, columns;

  // All tiles along a side as whole ones: d start in every full period of tile * d pixels, one at each of the first d
  // pixels of a part of one.
  static Band along(int64_t side, int64_t dilation, int tile) {
    const int64_t period = tile * dilation, rest = side % period;
    return {0, side / period * dilation + (rest < dilation ? rest : dilation), tile, tile};
  }
  // The bands of a side; returns their number.
  static int cut(int64_t side, int64_t dilation, int tile, Band bands[kMostBands]) {
    const int64_t whole = side / (tile * dilation) * dilation, rest = side % (tile * dilation);
    const int pixels = static_cast<int>(rest / dilation);  // of the last tiles; the first ones of the rest have 1 more
    const int64_t longer = rest % dilation, last = pixels > 0 ? dilation - longer : 0;
    const int most = tile == 4 ? 3 : 4;  // pixels of a tile that is not run as a whole one
    const bool longer_whole = pixels + 1 > most, last_whole = pixels > most;
    const Band all[kMostBands] = {{0, whole + (longer_whole ? longer : 0) + (last_whole ? last : 0), tile, tile},
                                  {whole, longer_whole ? 0 : longer, pixels + 1, tile},
                                  {whole + longer, last_whole ? 0 : last, pixels, tile}};
    int count = 0;
    for (const Band& band : all)
      if (band.tiles > 0) bands[count++] = band;
    return count;
  }
  // The first output pixel of tile `index` along a side.
  int64_t origin(int64_t index, int64_t dilation) const {
    return index / dilation * tile * dilation + index % dilation;
  }
  int64_t tiles() const { return images * rows.tiles * columns.tiles; }
  bool whole() const { return rows.pixels == tile && columns.pixels == tile; }
  bool has(int k) const { return rows.has(k / numbers_of(tile)) && columns.has(k % numbers_of(tile)); }
  // No run of so many tiles reads more columns than this, whatever the width of the pictures.
  int64_t window(int64_t run) const { return tile * run + (2 * tile + 2) * dilation_w; }
};

// With stride 2, pixels are taken by their parities, even or odd rows and columns: the four quarters of a picture. A
// strided convolution (3x3 or 4x4 taps with padding 1, 5x5 with padding 2) is the sum of four convolutions, one for
// each quarter of the input; a transposed one (the same, and output padding 1 where the taps are odd) is four, one for
// each quarter of the output. A row of 3 taps gives one parity 1 of them and the other 2, one of 4 gives each 2, one of
// 5 gives 3 and 2. Tiles are then of a quarter's pixels.
constexpr int kQuarters = 4;

struct Quarters {
  Stride stride = Stride::one;
  int taps = 3;  // along a side of the weight
  int tile = 4;  // 6 with stride 1 alone
  int spectrum() const { return spectrum_of(tile); }
  int of_input() const { return stride == Stride::two ? kQuarters : 1; }
  int of_output() const { return stride == Stride::transposed_two ? kQuarters : 1; }
  // Which tap meets pixel i of the 3 round an output pixel, along a side, between rows of these parities. Output pixel
  // y reads input pixel 2y - padding + tap, so pixel j = y - 1 + i of the even ones (2j) by tap padding + 2i - 2, of
  // the odd ones (2j + 1) by the next. Transposed: output pixel 2y + parity is given input pixel y - 1 + i by tap
  // padding + 2 + parity - 2i.
  int tap(int i, int input, int output) const {
    if (stride == Stride::one) return i;
    const int padding = resampling_padding(taps);
    return stride == Stride::two ? padding + 2 * i - 2 + input : padding + 2 + output - 2 * i;
  }
  // Of the weights between a quarter of the input and one of the output.
  Support support(int input, int output) const { return {side(input / 2, output / 2), side(input % 2, output % 2)}; }
  // Numbers of the weights between the first quarters of the input, all of them, and one of the output.
  int numbers(int output, int before) const {
    int sum = 0;
    for (int i = 0; i < before; ++i) sum += support(i, output).count();
    return sum;
  }
  int numbers(int output) const { return numbers(output, of_input()); }
  // Of the weights of all quarters of the output before this one.
  int numbers_before(int output) const {
    int sum = 0;
    for (int i = 0; i < output; ++i) sum += numbers(i);
    return sum;
  }
  // Planes of the transformed weights before those of one of the `blocks` of 32 output channels: those of a quarter of
  // the output lie together.
  int64_t planes_before(int output, int64_t block, int64_t blocks) const {
    return numbers_before(output) * blocks + block * numbers(output);
  }

 private:
  Support::Side side(int input, int output) const {
    Support::Side side{3, 0, tile};
    for (int i = 2; i >= 0; --i)
      if (tap(i, input, output) >= 0 && tap(i, input, output) < taps) side.first = i, ++side.taps;
    return side;
  }
};

inline Pictures quarter_of(Pictures pictures, int quarters, int quarter) {
  if (quarters == 1) return pictures;
  const int row = quarter / 2, column = quarter % 2;
  pictures.data = pictures.floats() + row * pictures.of_row + column * pictures.of_column;
  pictures.height = (pictures.height + 1 - row) / 2, pictures.width = (pictures.width + 1 - column) / 2;
  pictures.of_row *= 2, pictures.of_column *= 2;
  return pictures;
}

struct ConvBlock {
  Tiling tiling;
  Pictures input, output;
  Quarters quarters;
  // Transformed: [quarters of the output][output channels / 32][quarters of the input][their numbers][input
  // channels][32]; or split, of each number [input channels / 32][parts][2] tiles of amx.h.
  const void* weights = nullptr;
  MultiplySplit* multiply_split = nullptr;  // of split numbers; null: products are float32's
  const float* epilogue = nullptr;          // [kEpilogueRows][output channels, rounded up to 32]
  const float* zeros = nullptr;             // as many as input channels, rounded up to 16
  Activation activation = Activation::none;
  float slope = 0;
  int64_t task_tiles = 0;  // the most tiles of one task

  int64_t blocks() const { return ceil_div(output.channels, kColumns); }
  bool is_split() const { return multiply_split != nullptr; }
  // Rows of a product: tiles of pixels, with the rest of the last tile of amx.h.
  int64_t rows(int64_t tiles) const { return is_split() ? round_up(tiles, kTileRows) : tiles; }
  // Of one number, in floats. Planes end with a panel that is not used: so many at a power of two apart would share one
  // set of the cache.
  int64_t patch_plane(int64_t tiles) const {
    if (is_split()) return round_up(input.channels, kTileDepth) * rows(tiles) * kParts / 2 + kPanel;
    return round_up(input.channels, kPanel) * tiles + kPanel;
  }
  // Of the weights of one number and 32 output channels: floats, or numbers of bfloat16.
  int64_t plane() const { return input.channels * kColumns; }
  int64_t split_plane() const { return round_up(input.channels, kTileDepth) * kColumns * kParts; }
  int64_t product_plane(int64_t tiles) const { return rows(tiles) * kColumns + kPanel; }

  // Of all transformed weights, and of the patches and products of one tile.
  int64_t weight_bytes() const {
    return quarters.numbers_before(quarters.of_output()) * blocks() * (is_split() ? 2 * split_plane() : 4 * plane());
  }
  int64_t tile_bytes() const {
    const int64_t channels = round_up(std::max<int64_t>(input.channels, 1), kPanel);
    return quarters.spectrum() * (quarters.of_input() * channels * (is_split() ? 2 * kParts : 4) + kColumns * 4);
  }

  // Transformed patches, products, and rows of pixels on their way between the layouts: what one task needs, in floats.
  int64_t patch_floats() const { return quarters.of_input() * quarters.spectrum() * patch_plane(task_tiles); }
  int64_t product_floats() const { return quarters.spectrum() * product_plane(task_tiles); }
  int64_t workspace_floats() const {
    return patch_floats() + product_floats() + tiling.window(task_tiles) * tiling.tile * kColumns;  // 4 x 32 > 6 x 16
  }
};

// The weights of all pairs of a quarter of the input and one of the output.
struct QuarteredWeights : Weights {
  Quarters quarters;
  int64_t blocks() const { return ceil_div(out_channels, kColumns); }
  int64_t plane() const { return in_channels * kColumns; }
  int64_t split_plane() const { return round_up(in_channels, kTileDepth) * kColumns * kParts; }
  // Planes of the transformed weights of all blocks of 32 output channels before this one; with quarters, those of the
  // output's one after the other.
  int64_t planes_before(int64_t block) const {
    return quarters.planes_before(static_cast<int>(block / blocks()), block % blocks(), blocks());
  }
  // How many numbers the transformed weights have: of float32, or split, of bfloat16.
  int64_t transformed_numbers(bool split) const {
    return quarters.numbers_before(quarters.of_output()) * blocks() * (split ? split_plane() : plane());
  }
};

// The gradient of the weights, in the Winograd domain: for each of the numbers, patches^T times gradient tiles, over
// chunks of tiles small enough for a last-level cache; transformed back once.
struct WeightGradient {
  Tiling tiling;
  Pictures input, grad;  // grad: of the output
  Quarters quarters;
  const float* zeros = nullptr;  // as many as the most channels of the two, rounded up to 16
  float* patches = nullptr;      // [quarters of the input][numbers][input channels / 16][chunk][16]
  float* grad_tiles = nullptr;   // [quarters of the output][numbers][output channels / 32][chunk][32]
  float* sums = nullptr;         // [numbers][output channels / 32][input channels, rounded up to 16][32]
  int64_t chunk = 0;             // tiles
  int64_t begin = 0, end = 0;    // tiles of this chunk
  // One product of patches and gradient tiles: which plane of each, and of the sums.
  struct Term {
    int patches, grad_tiles, sums;
  } terms[kQuarters * spectrum_of(4)];  // those that the tiling has
  int64_t panels() const { return ceil_div(input.channels, kPanel); }
  int64_t blocks() const { return ceil_div(grad.channels, kColumns); }
  int64_t numbers() const { return quarters.numbers_before(quarters.of_output()); }
  int64_t patch_plane() const { return panels() * kPanel * chunk + kPanel; }
  int64_t grad_plane() const { return blocks() * kColumns * chunk + kPanel; }
  int64_t sum_plane() const { return blocks() * panels() * kPanel * kColumns; }
  int64_t patch_floats() const { return quarters.of_input() * quarters.spectrum() * patch_plane(); }
  int64_t grad_tile_floats() const { return quarters.of_output() * quarters.spectrum() * grad_plane(); }
  int64_t sum_floats() const { return numbers() * sum_plane(); }
  int64_t workspace_floats(int64_t tiles) const { return numbers_of(tiling.tile) * kPanel * tiling.window(tiles); }
  // Fills `terms` and returns their number.
  int find_terms() {
    const int spectrum = quarters.spectrum();
    int count = 0, number = 0;
    for (int quarter = 0; quarter < quarters.of_output(); ++quarter)
      for (int source = 0; source < quarters.of_input(); ++source)
        for (int k = 0; k < spectrum; ++k) {
          if (!quarters.support(source, quarter).has(k)) continue;
          if (tiling.has(k)) terms[count++] = {source * spectrum + k, quarter * spectrum + k, number};
          ++number;
        }
    return count;
  }
};

// Tiles [begin, end) of a block, for the blocks [first, last) of 32 output channels.
struct Task {
  int64_t begin, end;
  int64_t first, last;
};

// A task, in a workspace of workspace_floats().
INPAINT_FAST_DECLARE_CPU_KERNEL(void conv_block(const ConvBlock& args, const Task& task, float* workspace))
// Rows [begin, end) of all pictures: from pictures whose channels lie together to such whose columns do.
INPAINT_FAST_DECLARE_CPU_KERNEL(void copy_rows(const Pictures& from, const Pictures& to, int64_t begin, int64_t end))
// Blocks [begin, end) of 32 output channels of G weight G^T; with quarters, of the output's one after the other.
INPAINT_FAST_DECLARE_CPU_KERNEL(void transform_weights(const QuarteredWeights& weights, float* transformed,
                                                       int64_t begin, int64_t end))
// Planes of transformed weights, [input channels][32] each, as products of amx.h read them.
INPAINT_FAST_DECLARE_CPU_KERNEL(void split_weights(const float* transformed, int64_t planes, int64_t channels,
                                                   uint16_t* split))
// Patches and gradient tiles [begin, end) of the chunk, in a workspace of workspace_floats(end - begin).
INPAINT_FAST_DECLARE_CPU_KERNEL(void gather_tiles(const WeightGradient& args, int64_t begin, int64_t end,
                                                  float* workspace))
// Adds the chunk's products to sums, for the pairs [begin, end) of (number, block of 32 output channels).
INPAINT_FAST_DECLARE_CPU_KERNEL(void add_products(const WeightGradient& args, int64_t begin, int64_t end))
// Blocks [begin, end) of 32 output channels of G^T sums G.
INPAINT_FAST_DECLARE_CPU_KERNEL(void transform_sums(const WeightGradient& args, const QuarteredWeights& grad_weight,
                                                    int64_t begin, int64_t end))

}  // namespace inpaint_fast
