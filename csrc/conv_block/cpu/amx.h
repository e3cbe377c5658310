// Products of float32 matrices on AMX, whose tiles hold bfloat16 numbers: each number is a sum of three of these,
// high + middle + low, of 8 bits each, and of the nine products of parts the six that count are summed in float32.
//
// With the three left out, two of middle and low and one of low and low, below 2^-21 of a product, the sums round less
// than float32's own do one after the other: of N(0, 1) pictures and 256 channels the block's error is 1.6e-6 of its
// norm by F(4x4, 3x3) and 3.1e-6 by F(6x6, 3x3) where float32's is 3.2e-6 and 6.1e-6. Five products would leave 3e-5,
// three, of two parts, 5e-5. Parts below 2^-126 are zeros, so numbers below 2^-110 have fewer bits.
#pragma once

#include <stdint.h>

namespace inpaint_fast {

constexpr int kParts = 3;
// A tile of factors: 16 rows of 32 numbers along the summed index; of the second factor, which lies by pairs of rows,
// 16 pairs of 16 columns. It is one piece of memory, and begins a cache line.
constexpr int kTileRows = 16, kTileDepth = 32, kTileNumbers = kTileRows * kTileDepth;
constexpr int kMostTerms = 4;  // of a sum: one for each quarter of the input

// What is summed to one of the numbers of the Winograd domain, for some tiles of pixels and one block of 32 output
// channels: the products of `count` pairs of factors.
struct SplitNumber {
  const uint16_t* patches[kMostTerms];  // [input channels / 32][parts][rows / 16] tiles
  const uint16_t* weights[kMostTerms];  // [input channels / 32][parts][2] tiles, one for each 16 output channels
  int count = 0;
  float* products = nullptr;  // [rows][32]
};

// The sums of all these numbers, of 16 `groups` rows and 32 `panels` input channels.
typedef void MultiplySplit(const SplitNumber* numbers, int count, int64_t groups, int64_t panels);
MultiplySplit multiply_by_stand_in;
#ifdef INPAINT_FAST_AMX
MultiplySplit multiply_by_amx;
#endif

}  // namespace inpaint_fast
