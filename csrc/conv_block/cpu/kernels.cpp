// The convolutions of the blocks by Winograd's F(4x4, 3x3) and F(6x6, 3x3) with their epilogue, and the gradient of
// their weights.
#include "common/activation.h"
#include "common/stage_clock.h"
#include "conv_block/cpu/winograd_tiles.h"

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {
namespace {

// Calls run(rows, columns), the bands of the tiles: constants for whole tiles, whose transforms are then unrolled.
template <int kTile, class Run>
INPAINT_FAST_INLINE void with_bands(const Tiling& tiling, const Run& run) {
  if (tiling.whole())
    run(Band{0, 0, kTile, kTile}, Band{0, 0, kTile, kTile});
  else
    run(tiling.rows, tiling.columns);
}

// B^T patch B of 16 channels; the results lie `plane` apart.
template <int kTile>
INPAINT_FAST_INLINE void transform_patch(const Tiling& tiling, const float* const pixels[], float* to, int64_t plane) {
  constexpr int kNumbers = numbers_of(kTile);
  with_bands<kTile>(tiling, [&](const Band& rows, const Band& columns) __attribute__((always_inline)) {
    for (int lane = 0; lane < kPanel; lane += kLanes)
      transform_2d<kNumbers, kNumbers>(
          [&](const Floats* in, Floats* out) { Transforms<kTile>::patch(rows.pixels, in, out); },
          [&](const Floats* in, Floats* out) { Transforms<kTile>::patch(columns.pixels, in, out); },
          Places{rows.pixels + 2}, Places{columns.pixels + 2}, rows, columns,
          [&](int i, int j) { return load(pixels[i * kNumbers + j] + lane, Floats{}); },
          [&](int i, int j, Floats v) { store(to + (i * kNumbers + j) * plane + lane, v); });
  });
}

// A^T products A, and the epilogue, for one block of 32 output channels; `products` are those of tile `begin`, the
// numbers lie `plane` apart.
template <int kTile, Activation kActivation>
INPAINT_FAST_INLINE void transform_products(const ConvBlock& args, const Band& row_band, const Band& column_band,
                                            const float* epilogue, const float* products, int64_t plane, int64_t begin,
                                            int64_t end, const TileWriter& writer) {
  constexpr int kNumbers = numbers_of(kTile);
  const Tiling& tiling = args.tiling;
  const int64_t of_row = writer.of_row, of_column = tiling.dilation_w * writer.of_column;
  const int64_t channels = round_up(args.output.channels, kColumns);
  const Floats slope = broadcast<Floats>(args.slope);
  for (int64_t index = begin; index < end; ++index, products += kColumns) {
    const Tile tile(tiling, index);
    const int64_t rows = clipped((tiling.height - tile.y + tiling.dilation_h - 1) / tiling.dilation_h, 0, kTile);
    const int64_t columns = clipped((tiling.width - tile.x + tiling.dilation_w - 1) / tiling.dilation_w, 0, kTile);
    float* const place = writer.place(tile);
    if (index + 1 < end) {  // the next tile's pixels are on their way while this one is computed
      const float* const next = writer.place(Tile(tiling, index + 1));
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
          for (int lane = 0; lane < kColumns; lane += 16)
            __builtin_prefetch(next + i * of_row + j * of_column + lane, 1);
    }
    for (int lane = 0; lane < kColumns; lane += kLanes) {
      const auto row = [&](EpilogueRow which) { return load(epilogue + which * channels + lane, Floats{}); };
      const Floats scale_before = row(kScaleBefore), shift_before = row(kShiftBefore);
      const Floats scale_after = row(kScaleAfter), shift_after = row(kShiftAfter);
      transform_2d<kNumbers, kTile>(
          [&](const Floats* in, Floats* out) { Transforms<kTile>::tile(row_band.pixels, in, out); },
          [&](const Floats* in, Floats* out) { Transforms<kTile>::tile(column_band.pixels, in, out); }, row_band,
          column_band, Places{row_band.pixels}, Places{column_band.pixels},
          [&](int i, int j) { return load(products + (i * kNumbers + j) * plane + lane, Floats{}); },
          [&](int i, int j, Floats v) {
            if (i >= rows || j >= columns) return;
            v = activated<kActivation>(v * scale_before + shift_before, slope);
            store(place + i * of_row + j * of_column + lane, v * scale_after + shift_after);
          });
    }
  }
}

// The numbers of one patch and panel, split, to a row of the tiles of amx.h: of those that the tiling has, `plane`
// floats apart. Of an odd number of panels, zeros are the one after the last.
INPAINT_FAST_INLINE void split_patch(const ConvBlock& args, const float* numbers, int64_t tile, int64_t tiles,
                                     int64_t panel, float* to, int64_t plane) {
  typedef uint16_t Words __attribute__((vector_size(kVectorBytes / 2)));
  constexpr int kPanels = kTileDepth / kPanel;
  const int64_t of_part = args.rows(tiles) * kTileDepth, half = panel % kPanels;
  const bool alone = half == 0 && (panel + 1) * kPanel >= args.input.channels;
  for (int k = 0; k < args.quarters.spectrum(); ++k, numbers += kPanel, to += plane) {
    if (!args.tiling.has(k)) continue;
    uint16_t* const row = reinterpret_cast<uint16_t*>(to) + panel / kPanels * kParts * of_part + tile * kTileDepth;
    for (int lane = 0; lane < kPanel; lane += kLanes) {
      UInt32s parts[kParts];
      split(load(numbers + lane, Floats{}), parts);
      for (int part = 0; part < kParts; ++part) {
        const Words words = __builtin_convertvector(parts[part] >> 16, Words);
        memcpy(row + part * of_part + half * kPanel + lane, &words, sizeof words);
      }
    }
    for (int part = 0; alone && part < kParts; ++part)
      memset(row + part * of_part + kPanel, 0, sizeof(uint16_t) * kPanel);
  }
}

// The products that make up each of the numbers of a quarter of the output: which planes of the patches and of a
// block's weights are their factors.
template <int kSpectrum>
struct Terms {
  struct {
    int patches, weights;
  } terms[kSpectrum][kQuarters];
  int counts[kSpectrum] = {};

  Terms(const ConvBlock& args, int quarter) {
    for (int source = 0; source < args.quarters.of_input(); ++source) {
      const Support support = args.quarters.support(source, quarter);
      const int numbers = args.quarters.numbers(quarter, source);
      for (int k = 0; k < kSpectrum; ++k)
        if (support.has(k) && args.tiling.has(k))
          terms[k][counts[k]++] = {source * kSpectrum + k, numbers + support.rank(k)};
    }
  }

  // Of one block of 32 output channels, whose weights begin with that plane.
  void multiply_floats(const ConvBlock& args, const float* patches, int64_t first_plane, int64_t tiles,
                       float* products) const {
    const float* const weights = static_cast<const float*>(args.weights) + first_plane * args.plane();
    const int64_t groups = (tiles + kMaxRows - 1) / kMaxRows;
    const int64_t patch_plane = args.patch_plane(tiles), product_plane = args.product_plane(tiles);
    for (int k = 0; k < kSpectrum; ++k)
      for (int64_t group = 0; counts[k] > 0 && group < groups; ++group) {
        const int64_t first = tiles * group / groups, last = tiles * (group + 1) / groups;
        Factors factors[kQuarters];
        for (int i = 0; i < counts[k]; ++i)
          factors[i] = {patches + terms[k][i].patches * patch_plane + first * kPanel,
                        weights + terms[k][i].weights * args.plane()};
        multiply<kPanel, 1, false>(last - first, factors, counts[k], tiles * kPanel, args.input.channels,
                                   products + k * product_plane + first * kColumns);
      }
  }
  void multiply_split(const ConvBlock& args, const float* patches, int64_t first_plane, int64_t tiles,
                      float* products) const {
    const uint16_t* const weights = static_cast<const uint16_t*>(args.weights) + first_plane * args.split_plane();
    static_assert(kMostTerms == kQuarters, "a term for each");
    SplitNumber numbers[kSpectrum];
    int count = 0;
    for (int k = 0; k < kSpectrum; ++k) {
      if (counts[k] == 0) continue;
      SplitNumber& number = numbers[count++];
      for (int i = 0; i < counts[k]; ++i) {
        number.patches[i] = reinterpret_cast<const uint16_t*>(patches + terms[k][i].patches * args.patch_plane(tiles));
        number.weights[i] = weights + terms[k][i].weights * args.split_plane();
      }
      number.count = counts[k], number.products = products + k * args.product_plane(tiles);
    }
    args.multiply_split(numbers, count, args.rows(tiles) / kTileRows, ceil_div(args.input.channels, kTileDepth));
  }
};

template <int kTile>
void convolve(const ConvBlock& args, const Task& task, float* workspace) {
  constexpr int kNumbers = numbers_of(kTile), kSpectrum = spectrum_of(kTile);
  const int64_t begin = task.begin, end = task.end;
  const int64_t tiles = end - begin, patch_plane = args.patch_plane(tiles), product_plane = args.product_plane(tiles);
  float* const patches = workspace;
  float* const products = patches + args.patch_floats();
  float* const rows = products + args.product_floats();
  const Quarters& quarters = args.quarters;
  const bool is_split = args.is_split();
  float numbers[kSpectrum * kPanel];  // of a patch that is to be split
  int64_t began = stage_begins();

  for (int quarter = 0; quarter < quarters.of_input(); ++quarter) {
    const Pictures input = quarter_of(args.input, quarters.of_input(), quarter);
    const TileReader<kNumbers> reader{args.tiling,           input,      args.tiling.padding_h,
                                      args.tiling.padding_w, args.zeros, rows};
    float* const first = patches + quarter * kSpectrum * patch_plane;
    reader.read(begin, end, [&](int64_t tile, int64_t panel, const float* const pixels[]) {
      transform_patch<kTile>(args.tiling, pixels, is_split ? numbers : first + (panel * tiles + tile - begin) * kPanel,
                             is_split ? kPanel : patch_plane);
      if (is_split) split_patch(args, numbers, tile - begin, tiles, panel, first, patch_plane);
    });
  }
  began = stage_ends(Stage::gather, began);

  for (int quarter = 0; quarter < quarters.of_output(); ++quarter) {
    const Pictures output = quarter_of(args.output, quarters.of_output(), quarter);
    const Terms<kSpectrum> terms(args, quarter);
    for (int k = 0; k < kSpectrum; ++k)
      if (terms.counts[k] == 0) memset(products + k * product_plane, 0, sizeof(float) * tiles * kColumns);

    for (int64_t block = task.first; block < task.last; ++block) {
      const int64_t planes = quarters.planes_before(quarter, block, args.blocks());
      if (is_split)
        terms.multiply_split(args, patches, planes, tiles, products);
      else
        terms.multiply_floats(args, patches, planes, tiles, products);
      began = stage_ends(Stage::product, began);
      for (int64_t first = begin, last; first < end; first = last) {
        last = end_of_run(args.tiling, first, end);
        const TileWriter writer(args.tiling, output, block, first, last, rows);
        with_activation(args.activation, [&](auto activation) {
          with_bands<kTile>(args.tiling, [&](const Band& row_band, const Band& column_band) {
            transform_products<kTile, decltype(activation)::value>(
                args, row_band, column_band, args.epilogue + block * kColumns, products + (first - begin) * kColumns,
                product_plane, first, last, writer);
          });
        });
        writer.finish();
      }
      began = stage_ends(Stage::inverse, began);
    }
  }
}

}  // namespace

void conv_block(const ConvBlock& args, const Task& task, float* workspace) {
  (args.quarters.tile == 6 ? convolve<6> : convolve<4>)(args, task, workspace);
}

void copy_rows(const Pictures& from, const Pictures& to, int64_t begin, int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const int64_t image = index / from.height, row = index % from.height;
    transpose_copy(from.floats() + image * from.of_image + row * from.of_row, from.of_column, from.of_channel,
                   to.floats() + image * to.of_image + row * to.of_row, to.of_column, to.of_channel, from.width,
                   from.channels);
  }
}

namespace {

// The taps between 16 input and 32 output channels, and one pair of quarters, out of and into a weight of any strides.
struct TapBlock {
  const QuarteredWeights& weights;
  const Support support;
  int64_t offsets[9];  // of the tap for each of the 3x3 round a pixel
  float taps[kPanel][9][kColumns];

  TapBlock(const QuarteredWeights& weights, int source, int quarter)
      : weights(weights), support(weights.quarters.support(source, quarter)) {
    for (int tap = 0; tap < 9; ++tap)
      offsets[tap] = weights.quarters.tap(tap / 3, source / 2, quarter / 2) * weights.of_row +
                     weights.quarters.tap(tap % 3, source % 2, quarter % 2) * weights.of_column;
  }

  void gather(int64_t in, int64_t ins, int64_t out, int64_t outs) {
    const float* const from = weights.floats() + in * weights.of_in + out * weights.of_out;
    float* const to = taps[0][0];
    if (dense()) {
      if (outs < kColumns) memset(taps, 0, sizeof taps);
      return transpose_copy(from, weights.of_out, 1, to, 1, kColumns, outs, 9 * ins);
    }
    memset(taps, 0, sizeof taps);
    for (int tap = 0; tap < 9; ++tap) {
      if (!support.has_tap(tap / 3, tap % 3)) continue;
      if (weights.of_out == 1)
        for (int64_t i = 0; i < ins; ++i)
          memcpy(taps[i][tap], from + offsets[tap] + i * weights.of_in, sizeof(float) * outs);
      else
        transpose_copy(from + offsets[tap], weights.of_out, weights.of_in, to + tap * kColumns, 1, 9 * kColumns, outs,
                       ins);
    }
  }

  void scatter(int64_t in, int64_t ins, int64_t out, int64_t outs) const {
    float* const to = weights.floats() + in * weights.of_in + out * weights.of_out;
    const float* const from = taps[0][0];
    if (dense()) return transpose_copy(from, kColumns, 1, to, 1, weights.of_out, 9 * ins, outs);
    for (int tap = 0; tap < 9; ++tap)
      if (support.has_tap(tap / 3, tap % 3))
        transpose_copy(from + tap * kColumns, 9 * kColumns, 1, to + offsets[tap], weights.of_in, weights.of_out, ins,
                       outs);
  }

 private:
  // All 9 taps of neighbouring input channels lie together.
  bool dense() const {
    return weights.quarters.stride == Stride::one && weights.of_column == 1 && weights.of_row == 3 &&
           weights.of_in == 9;
  }
};

template <int kTile>
void weights_of_tile(const QuarteredWeights& weights, float* transformed, int64_t begin, int64_t end) {
  constexpr int kNumbers = numbers_of(kTile);
  const Quarters& quarters = weights.quarters;
  const int64_t plane = weights.plane(), blocks = weights.blocks();
  for (int64_t index = begin; index < end; ++index) {
    const int quarter = static_cast<int>(index / blocks);
    const int64_t out = index % blocks * kColumns, outs = clipped(weights.out_channels - out, 0, kColumns);
    for (int source = 0; source < quarters.of_input(); ++source) {
      TapBlock block(weights, source, quarter);
      float* const numbers = transformed + (weights.planes_before(index) + quarters.numbers(quarter, source)) * plane;
      for (int64_t first = 0; first < weights.in_channels; first += kPanel) {
        const int64_t ins = clipped(weights.in_channels - first, 0, kPanel);
        block.gather(first, ins, out, outs);
        for (int64_t i = 0; i < ins; ++i)
          for (int lane = 0; lane < kColumns; lane += kLanes)
            transform_2d<3, kNumbers>([](const Floats* w, Floats* out) { Transforms<kTile>::weight(w, out); },
                                      [](const Floats* w, Floats* out) { Transforms<kTile>::weight(w, out); },
                                      Places{3}, Places{3}, Places{kNumbers}, Places{kNumbers},
                                      [&](int r, int c) { return load(block.taps[i][r * 3 + c] + lane, Floats{}); },
                                      [&](int r, int c, Floats v) {
                                        const int k = r * kNumbers + c;
                                        if (block.support.has(k))
                                          store(numbers + block.support.rank(k) * plane + (first + i) * kColumns + lane,
                                                v);
                                      });
      }
    }
  }
}

}  // namespace

void transform_weights(const QuarteredWeights& weights, float* transformed, int64_t begin, int64_t end) {
  (weights.quarters.tile == 6 ? weights_of_tile<6> : weights_of_tile<4>)(weights, transformed, begin, end);
}

void split_weights(const float* transformed, int64_t planes, int64_t channels, uint16_t* split_to) {
  for (int64_t plane = 0; plane < planes; ++plane, transformed += channels * kColumns)
    for (int64_t first = 0; first < channels; first += kTileDepth, split_to += kParts * 2 * kTileNumbers)
      for (int pair = 0; pair < kTileDepth / 2; ++pair)
        for (int column = 0; column < kColumns; column += kLanes) {
          const auto row = [&](int64_t channel) {
            return channel < channels ? load(transformed + channel * kColumns + column, Floats{}) : Floats{};
          };
          UInt32s low[kParts], high[kParts];
          split(row(first + 2 * pair), low), split(row(first + 2 * pair + 1), high);
          for (int part = 0; part < kParts; ++part) {
            const UInt32s both = low[part] >> 16 | high[part];
            uint16_t* const tile = split_to + (2 * part + column / kTileRows) * kTileNumbers;
            memcpy(tile + 2 * (pair * kTileRows + column % kTileRows), &both, sizeof both);
          }
        }
}

// ---- the gradient of the weights ----

namespace {

template <int kTile>
void gather(const WeightGradient& args, int64_t begin, int64_t end, float* workspace) {
  constexpr int kNumbers = numbers_of(kTile), kSpectrum = spectrum_of(kTile);
  for (int quarter = 0; quarter < args.quarters.of_input(); ++quarter) {
    const Pictures input = quarter_of(args.input, args.quarters.of_input(), quarter);
    const TileReader<kNumbers> reader{args.tiling,           input,      args.tiling.padding_h,
                                      args.tiling.padding_w, args.zeros, workspace};
    float* const patches = args.patches + quarter * kSpectrum * args.patch_plane();
    reader.read(begin, end, [&](int64_t tile, int64_t panel, const float* const pixels[]) {
      transform_patch<kTile>(args.tiling, pixels, patches + (panel * args.chunk + tile - args.begin) * kPanel,
                             args.patch_plane());
    });
  }
  for (int quarter = 0; quarter < args.quarters.of_output(); ++quarter) {
    const Pictures grad = quarter_of(args.grad, args.quarters.of_output(), quarter);
    const TileReader<kTile> reader{args.tiling, grad, 0, 0, args.zeros, workspace};
    float* const tiles = args.grad_tiles + quarter * kSpectrum * args.grad_plane();
    reader.read(begin, end, [&](int64_t tile, int64_t panel, const float* const pixels[]) {
      constexpr int kPanels = kColumns / kPanel;  // of a block
      float* const to =
          tiles + (panel / kPanels * args.chunk + tile - args.begin) * kColumns + panel % kPanels * kPanel;
      with_bands<kTile>(args.tiling, [&](const Band& rows, const Band& columns) __attribute__((always_inline)) {
        for (int lane = 0; lane < kPanel; lane += kLanes)
          transform_2d<kTile, kNumbers>(
              [&](const Floats* in, Floats* out) { Transforms<kTile>::grad_tile(rows.pixels, in, out); },
              [&](const Floats* in, Floats* out) { Transforms<kTile>::grad_tile(columns.pixels, in, out); },
              Places{rows.pixels}, Places{columns.pixels}, rows, columns,
              [&](int i, int j) { return load(pixels[i * kTile + j] + lane, Floats{}); },
              [&](int i, int j, Floats v) { store(to + (i * kNumbers + j) * args.grad_plane() + lane, v); });
      });
    });
  }
}

}  // namespace

void gather_tiles(const WeightGradient& args, int64_t begin, int64_t end, float* workspace) {
  const int64_t began = stage_begins();
  (args.quarters.tile == 6 ? gather<6> : gather<4>)(args, begin, end, workspace);
  stage_ends(Stage::gradient_gather, began);
}

void add_products(const WeightGradient& args, int64_t begin, int64_t end) {
  const int64_t blocks = args.blocks(), panels = args.panels();
  constexpr int kGroups = (kPanel + kMaxRows - 1) / kMaxRows;
  const int64_t began = stage_begins();
  for (int64_t index = begin; index < end; ++index) {
    const WeightGradient::Term& term = args.terms[index / blocks];
    const int64_t block = index % blocks;
    const float* const patches = args.patches + term.patches * args.patch_plane();
    const float* const grads = args.grad_tiles + term.grad_tiles * args.grad_plane() + block * args.chunk * kColumns;
    float* const sums = args.sums + term.sums * args.sum_plane() + block * panels * kPanel * kColumns;
    for (int64_t panel = 0; panel < panels; ++panel)
      for (int group = 0; group < kGroups; ++group) {
        const int first = kPanel * group / kGroups, last = kPanel * (group + 1) / kGroups;
        const Factors factors = {patches + panel * args.chunk * kPanel + first, grads};
        multiply<1, kPanel, true>(last - first, &factors, 1, kPanel * kPanel, args.end - args.begin,
                                  sums + (panel * kPanel + first) * kColumns);
      }
  }
  stage_ends(Stage::gradient_product, began);
}

namespace {

template <int kTile>
void weights_of_sums(const WeightGradient& args, const QuarteredWeights& grad_weight, int64_t begin, int64_t end) {
  constexpr int kNumbers = numbers_of(kTile);
  const int64_t rows = args.panels() * kPanel, plane = args.sum_plane();
  for (int64_t index = begin; index < end; ++index) {
    const int64_t out = index * kColumns, outs = clipped(grad_weight.out_channels - out, 0, kColumns);
    const float* sums = args.sums + index * rows * kColumns;
    for (int quarter = 0; quarter < args.quarters.of_output(); ++quarter)
      for (int source = 0; source < args.quarters.of_input(); ++source) {
        TapBlock block(grad_weight, source, quarter);
        for (int64_t first = 0; first < grad_weight.in_channels; first += kPanel) {
          const int64_t ins = clipped(grad_weight.in_channels - first, 0, kPanel);
          for (int64_t i = 0; i < ins; ++i)
            for (int lane = 0; lane < kColumns; lane += kLanes)
              transform_2d<kNumbers, 3>(
                  [](const Floats* u, Floats* out) { Transforms<kTile>::grad_weight(u, out); },
                  [](const Floats* u, Floats* out) { Transforms<kTile>::grad_weight(u, out); }, Places{kNumbers},
                  Places{kNumbers}, Places{3}, Places{3},
                  [&](int r, int c) {
                    const int k = r * kNumbers + c;
                    if (!block.support.has(k)) return Floats{};
                    return load(sums + block.support.rank(k) * plane + (first + i) * kColumns + lane, Floats{});
                  },
                  [&](int r, int c, Floats v) { store(block.taps[i][r * 3 + c] + lane, v); });
          block.scatter(first, ins, out, outs);
        }
        sums += block.support.count() * plane;
      }
  }
}

}  // namespace

void transform_sums(const WeightGradient& args, const QuarteredWeights& grad_weight, int64_t begin, int64_t end) {
  const int64_t began = stage_begins();
  (args.quarters.tile == 6 ? weights_of_sums<6> : weights_of_sums<4>)(args, grad_weight, begin, end);
  stage_ends(Stage::gradient_inverse, began);
}

}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
