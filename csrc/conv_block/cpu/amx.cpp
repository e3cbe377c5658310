// Written for eight registers of a tile each, whose numbers are part of the instructions. No torch header.
#include "conv_block/cpu/amx.h"

#include <string.h>

namespace inpaint_fast {
namespace {

constexpr int kRegisters = 8, kRowBytes = 64;

#ifdef INPAINT_FAST_AMX
// The instructions. They change nothing that the compiler knows of but memory.
struct AmxTiles {
  AmxTiles() {
    struct {  // LDTILECFG's operand
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64, "the layout that the instruction reads");
    for (int tile = 0; tile < kRegisters; ++tile) config.row_bytes[tile] = kRowBytes, config.rows[tile] = kTileRows;
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  ~AmxTiles() { asm volatile("tilerelease" : : : "memory"); }  // the system then saves no tiles of this thread

  template <int kTile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  void load(const void* from) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(int64_t{kRowBytes}), "i"(kTile) : "memory");
  }
  template <int kTile>
  void store(float* to, int64_t row_bytes) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(row_bytes), "i"(kTile) : "memory");
  }
  // sum += rows * columns
  template <int kSum, int kRows, int kColumns>
  void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kRows), "i"(kColumns));
  }
};
#endif

// The same in plain C++, to the bit where no product overflows: Intel's manual, TDPBF16PS. Those of two bfloat16
// numbers need no rounding. The emulator Bochs 3.1 has the same results of the instructions.
struct PlainTiles {
  template <int kTile>
  void zero() {
    memset(tiles_[kTile], 0, sizeof tiles_[kTile]);
  }
  template <int kTile>
  void load(const void* from) {
    memcpy(tiles_[kTile], from, sizeof tiles_[kTile]);
  }
  template <int kTile>
  void store(float* to, int64_t row_bytes) {
    for (int row = 0; row < kTileRows; ++row)
      memcpy(reinterpret_cast<char*>(to) + row * row_bytes, tiles_[kTile][row], kRowBytes);
  }
  template <int kSum, int kRows, int kColumns>
  void multiply() {
    multiply(tiles_[kSum], tiles_[kRows], tiles_[kColumns]);
  }

 private:
  typedef uint32_t Tile[kTileRows][kRowBytes / 4];
  static constexpr int kPairs = kTileDepth / 2, kColumnsOfTile = 16;
  // No number is subnormal: those below 2^-126 are zeros.
  static float flushed(float x) { return x * static_cast<float>(__builtin_fabsf(x) >= 1.17549435e-38f); }
  static float number(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return flushed(x);
  }

  __attribute__((noinline)) static void multiply(Tile& to, const Tile& rows, const Tile& columns) {
    float b[2][kPairs][kColumnsOfTile];  // of the first and the second row of each pair
    for (int pair = 0; pair < kPairs; ++pair)
      for (int column = 0; column < kColumnsOfTile; ++column) {
        const uint32_t both = columns[pair][column];
        b[0][pair][column] = number(both << 16), b[1][pair][column] = number(both & 0xffff0000u);
      }
    for (int row = 0; row < kTileRows; ++row) {
      float sums[2][kColumnsOfTile] = {};  // which round each for itself
      for (int pair = 0; pair < kPairs; ++pair) {
        const uint32_t both = rows[row][pair];
        const float a[2] = {number(both << 16), number(both & 0xffff0000u)};
        for (int i = 0; i < 2; ++i)
          for (int column = 0; column < kColumnsOfTile; ++column)
            sums[i][column] = flushed(sums[i][column] + a[i] * b[i][pair][column]);
      }
      for (int column = 0; column < kColumnsOfTile; ++column) {
        const float sum = flushed(number(to[row][column]) + flushed(sums[0][column] + sums[1][column]));
        memcpy(&to[row][column], &sum, sizeof sum);
      }
    }
  }

  Tile tiles_[kRegisters];
};

// Of the 32 columns and 16 or, with `kTwo`, 32 rows: four sums go on while each waits for its last product. Tiles 0 to
// 3 are sums, 4 and 5 parts of patches, 6 and 7 parts of weights, each of which is loaded as rarely as can be.
template <class Tiles, bool kTwo>
void multiply_rows(Tiles& tiles, const SplitNumber& number, int64_t group, int64_t groups, int64_t panels) {
  tiles.template zero<0>(), tiles.template zero<1>();
  if (kTwo) tiles.template zero<2>(), tiles.template zero<3>();
  for (int term = 0; term < number.count; ++term) {
    const uint16_t* patches = number.patches[term] + group * kTileNumbers;
    const uint16_t* weights = number.weights[term];
    const auto load_patches = [&](int part) {
      const uint16_t* const from = patches + part * groups * kTileNumbers;
      tiles.template load<4>(from);
      if (kTwo) tiles.template load<5>(from + kTileNumbers);
    };
    const auto load_weights = [&](int part) {
      const uint16_t* const from = weights + part * 2 * kTileNumbers;
      tiles.template load<6>(from), tiles.template load<7>(from + kTileNumbers);
    };
    const auto multiply = [&] {
      tiles.template multiply<0, 4, 6>(), tiles.template multiply<1, 4, 7>();
      if (kTwo) tiles.template multiply<2, 5, 6>(), tiles.template multiply<3, 5, 7>();
    };
    constexpr int kHigh = 0, kMiddle = 1, kLow = 2;
    for (int64_t panel = 0; panel < panels; ++panel) {
      load_patches(kHigh), load_weights(kLow), multiply();
      load_weights(kMiddle), multiply();
      load_patches(kMiddle), multiply();
      load_weights(kHigh), multiply();
      load_patches(kLow), multiply();
      load_patches(kHigh), multiply();
      patches += kParts * groups * kTileNumbers, weights += kParts * 2 * kTileNumbers;
    }
  }
  constexpr int64_t kBytes = 2 * kRowBytes;
  float* const to = number.products + group * kTileRows * 32;
  tiles.template store<0>(to, kBytes), tiles.template store<1>(to + 16, kBytes);
  if (kTwo)
    tiles.template store<2>(to + kTileRows * 32, kBytes), tiles.template store<3>(to + kTileRows * 32 + 16, kBytes);
}

template <class Tiles>
void multiply(const SplitNumber* numbers, int count, int64_t groups, int64_t panels) {
  Tiles tiles;
  for (int i = 0; i < count; ++i) {
    int64_t group = 0;
    for (; group + 1 < groups; group += 2) multiply_rows<Tiles, true>(tiles, numbers[i], group, groups, panels);
    if (group < groups) multiply_rows<Tiles, false>(tiles, numbers[i], group, groups, panels);
  }
}

}  // namespace

void multiply_by_stand_in(const SplitNumber* numbers, int count, int64_t groups, int64_t panels) {
  multiply<PlainTiles>(numbers, count, groups, panels);
}

#ifdef INPAINT_FAST_AMX
void multiply_by_amx(const SplitNumber* numbers, int count, int64_t groups, int64_t panels) {
  multiply<AmxTiles>(numbers, count, groups, panels);
}
#endif

}  // namespace inpaint_fast
