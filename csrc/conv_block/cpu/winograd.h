// The transforms of F(4x4, 3x3) and F(6x6, 3x3) and the product of small matrices between them, over vectors of
// channels. Interpolation points 0, 1, -1, 2, -2 and infinity: Lavin and Gray (2016), section 4.3. For 6x6 pixels 1/2
// and -1/2, too: no other 8 points lose less. Rounding a product's sum grows by a factor of 11 on the way out, of 6x6
// pixels by 21: sqrt of the mean over the pixels of sum_k A_k^2 |G_k|^2 |B_k|^2 / 3, in both dimensions.
#pragma once

#include "common/vec.h"
#include "conv_block/cpu/params.h"

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {

constexpr int kLanes = lanes<Floats>();

// ---- one dimension of each transform, for tiles of `pixels` rows or columns ----

template <int kTile>
struct Transforms;

// `pixels`: 1 to 4.
template <>
struct Transforms<4> {
  // B^T: pixels + 2 pixels to as many numbers. For fewer than 4, the polynomials are those of fewer points, and the
  // factors make up for the weights' being those of 6.
  template <class V>
  INPAINT_FAST_INLINE void patch(int pixels, const V d[6], V out[6]) {
    if (pixels == 4) {
      const V even = d[4] - 4.0f * d[2], odd = d[3] - 4.0f * d[1];
      const V far = d[4] - d[2], near = d[3] - d[1];
      out[0] = 4.0f * d[0] + (d[4] - 5.0f * d[2]);
      out[1] = even + odd;
      out[2] = even - odd;
      out[3] = far + 2.0f * near;
      out[4] = far - 2.0f * near;
      out[5] = 4.0f * d[1] + (d[5] - 5.0f * d[3]);
    } else if (pixels == 3) {
      out[0] = 4.0f * (d[0] - d[2]) + 2.0f * (d[3] - d[1]);
      out[1] = 3.0f * (d[3] - d[2]) - 6.0f * d[1];
      out[2] = d[3] + 2.0f * d[1] - 3.0f * d[2];
      out[3] = 4.0f * (d[3] - d[1]);
      out[5] = (d[4] - d[2]) - 2.0f * (d[3] - d[1]);
    } else if (pixels == 2) {
      out[0] = 4.0f * (d[0] - d[2]);
      out[1] = -3.0f * (d[1] + d[2]);
      out[2] = 3.0f * (d[1] - d[2]);
      out[5] = d[3] - d[1];
    } else {
      out[0] = 4.0f * (d[0] - d[1]);
      out[1] = -6.0f * d[1];
      out[5] = d[2] - d[1];
    }
  }

  // A^T: the products to the pixels.
  template <class V>
  INPAINT_FAST_INLINE void tile(int pixels, const V m[6], V out[4]) {
    if (pixels == 1) {
      out[0] = m[0] + m[1] + m[5];
      return;
    }
    const V sum1 = m[1] + m[2], difference1 = m[1] - m[2];
    if (pixels == 4) {
      const V sum2 = m[3] + m[4], difference2 = m[3] - m[4];
      out[0] = m[0] + sum1 + sum2;
      out[1] = difference1 + 2.0f * difference2;
      out[2] = sum1 + 4.0f * sum2;
      out[3] = difference1 + 8.0f * difference2 + m[5];
    } else if (pixels == 3) {
      out[0] = m[0] + sum1 + m[3];
      out[1] = difference1 + 2.0f * m[3];
      out[2] = sum1 + 4.0f * m[3] + m[5];
    } else {
      out[0] = m[0] + sum1;
      out[1] = difference1 + m[5];
    }
  }

  // A: the pixels of a gradient to the numbers.
  template <class V>
  INPAINT_FAST_INLINE void grad_tile(int pixels, const V g[4], V out[6]) {
    out[0] = g[0];
    out[5] = g[pixels - 1];
    if (pixels == 4) {
      const V even = g[0] + g[2], odd = g[1] + g[3];
      const V even2 = g[0] + 4.0f * g[2], odd2 = 2.0f * g[1] + 8.0f * g[3];
      out[1] = even + odd;
      out[2] = even - odd;
      out[3] = even2 + odd2;
      out[4] = even2 - odd2;
    } else if (pixels == 3) {
      const V even = g[0] + g[2];
      out[1] = even + g[1];
      out[2] = even - g[1];
      out[3] = g[0] + 2.0f * g[1] + 4.0f * g[2];
    } else if (pixels == 2) {
      out[1] = g[0] + g[1];
      out[2] = g[0] - g[1];
    } else {
      out[1] = g[0];
    }
  }

  // G: 3 taps to 6.
  template <class V>
  INPAINT_FAST_INLINE void weight(const V w[3], V out[6]) {
    const V even = (w[0] + w[2]) * (-1.0f / 6), odd = w[1] * (-1.0f / 6);
    const V even2 = w[0] * (1.0f / 24) + w[2] * (1.0f / 6), odd2 = w[1] * (1.0f / 12);
    out[0] = w[0] * 0.25f;
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = even2 + odd2;
    out[4] = even2 - odd2;
    out[5] = w[2];
  }

  // G^T: 6 sums to the gradients of 3 taps.
  template <class V>
  INPAINT_FAST_INLINE void grad_weight(const V u[6], V out[3]) {
    const V sum1 = u[1] + u[2], difference1 = u[2] - u[1], sum2 = u[3] + u[4], difference2 = u[3] - u[4];
    out[0] = u[0] * 0.25f + (sum2 * (1.0f / 24) - sum1 * (1.0f / 6));
    out[1] = difference1 * (1.0f / 6) + difference2 * (1.0f / 12);
    out[2] = u[5] + (sum2 - sum1) * (1.0f / 6);
  }
};

// What the weights of 6 numbers are of those of 8: of fewer than 6 pixels patches are those of as many of 4, times
// this.
constexpr float kOfEight[5] = {1.0f / 4, 3.0f / 4, 3.0f / 4, 15.0f / 4, 15.0f / 4};

// `pixels`: 1 to 4, or 6.
template <>
struct Transforms<6> {
  // Even and odd parts of polynomials at 1, 2 and 1/2 to their values there and at -1, -2 and -1/2.
  template <class V>
  INPAINT_FAST_INLINE void at_points(V even1, V odd1, V even2, V odd2, V even3, V odd3, V out[8]) {
    out[1] = even1 + odd1;
    out[2] = even1 - odd1;
    out[3] = even2 + odd2;
    out[4] = even2 - odd2;
    out[5] = even3 + odd3;
    out[6] = even3 - odd3;
  }

  template <class V>
  INPAINT_FAST_INLINE void patch(int pixels, const V d[8], V out[8]) {
    if (pixels < 6) {
      V of_4[6] = {};
      Transforms<4>::patch(pixels, d, of_4);
      for (int i = 0; i < 5; ++i) out[i] = kOfEight[i] * of_4[i];
      out[7] = of_4[5];
      return;
    }
    const V even1 = d[2] + d[6] - 4.25f * d[4], odd1 = d[1] + d[5] - 4.25f * d[3];
    const V even2 = d[6] + 0.25f * d[2] - 1.25f * d[4], odd2 = 0.5f * d[1] + 2.0f * d[5] - 2.5f * d[3];
    const V even3 = d[6] + 4.0f * d[2] - 5.0f * d[4], odd3 = 2.0f * d[1] + 0.5f * d[5] - 2.5f * d[3];
    out[0] = d[0] - d[6] + 5.25f * (d[4] - d[2]);
    at_points(even1, odd1, even2, odd2, even3, odd3, out);
    out[7] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
  }

  template <class V>
  INPAINT_FAST_INLINE void tile(int pixels, const V m[8], V out[6]) {
    if (pixels < 6) {
      const V of_4[6] = {m[0], m[1], m[2], m[3], m[4], m[7]};
      return Transforms<4>::tile(pixels, of_4, out);
    }
    const V sum1 = m[1] + m[2], difference1 = m[1] - m[2], sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    const V sum3 = m[5] + m[6], difference3 = m[5] - m[6];
    out[0] = m[0] + sum1 + (sum2 + sum3);
    out[1] = difference1 + 2.0f * difference2 + 0.5f * difference3;
    out[2] = sum1 + 4.0f * sum2 + 0.25f * sum3;
    out[3] = difference1 + 8.0f * difference2 + 0.125f * difference3;
    out[4] = sum1 + 16.0f * sum2 + 0.0625f * sum3;
    out[5] = difference1 + 32.0f * difference2 + (0.03125f * difference3 + m[7]);
  }

  template <class V>
  INPAINT_FAST_INLINE void grad_tile(int pixels, const V g[6], V out[8]) {
    if (pixels < 6) {
      V of_4[6] = {};
      Transforms<4>::grad_tile(pixels, g, of_4);
      for (int i = 0; i < 5; ++i) out[i] = of_4[i];
      out[7] = of_4[5];
      return;
    }
    const V even1 = g[0] + g[2] + g[4], odd1 = g[1] + g[3] + g[5];
    const V even2 = g[0] + 4.0f * g[2] + 16.0f * g[4], odd2 = 2.0f * g[1] + 8.0f * g[3] + 32.0f * g[5];
    const V even3 = g[0] + 0.25f * g[2] + 0.0625f * g[4], odd3 = 0.5f * g[1] + 0.125f * g[3] + 0.03125f * g[5];
    out[0] = g[0];
    at_points(even1, odd1, even2, odd2, even3, odd3, out);
    out[7] = g[5];
  }

  template <class V>
  INPAINT_FAST_INLINE void weight(const V w[3], V out[8]) {
    const V even1 = (w[0] + w[2]) * (-2.0f / 9), odd1 = w[1] * (-2.0f / 9);
    const V even2 = w[0] * (1.0f / 90) + w[2] * (2.0f / 45), odd2 = w[1] * (1.0f / 45);
    const V even3 = w[0] * (32.0f / 45) + w[2] * (8.0f / 45), odd3 = w[1] * (16.0f / 45);
    out[0] = w[0];
    at_points(even1, odd1, even2, odd2, even3, odd3, out);
    out[7] = w[2];
  }

  template <class V>
  INPAINT_FAST_INLINE void grad_weight(const V u[8], V out[3]) {
    const V sum1 = u[1] + u[2], difference1 = u[1] - u[2], sum2 = u[3] + u[4], difference2 = u[3] - u[4];
    const V sum3 = u[5] + u[6], difference3 = u[5] - u[6];
    out[0] = u[0] + (sum2 * (1.0f / 90) - sum1 * (2.0f / 9) + sum3 * (32.0f / 45));
    out[1] = difference2 * (1.0f / 45) - difference1 * (2.0f / 9) + difference3 * (16.0f / 45);
    out[2] = u[7] + (sum2 * (2.0f / 45) - sum1 * (2.0f / 9) + sum3 * (8.0f / 45));
  }
};

// What a transform reads and writes in one dimension: places [0, count), or the numbers of a band.
struct Places {
  int count;
  bool has(int i) const { return i < count; }
};

// Both dimensions: columns, then rows. read(row, column) gives a vector, write(row, column, vector) takes one;
// in_rows.has(row) says which are there.
template <int kIn, int kOut, class OfColumn, class OfRow, class In, class Out, class Read, class Write>
INPAINT_FAST_INLINE void transform_2d(const OfColumn& of_column, const OfRow& of_row, const In& in_rows,
                                      const In& in_columns, const Out& out_rows, const Out& out_columns,
                                      const Read& read, const Write& write) {
  Floats half[kOut][kIn];
  for (int column = 0; column < kIn; ++column) {
    if (!in_columns.has(column)) continue;
    Floats in[kIn], out[kOut];
    for (int row = 0; row < kIn; ++row)
      if (in_rows.has(row)) in[row] = read(row, column);
    of_column(in, out);
    for (int row = 0; row < kOut; ++row)
      if (out_rows.has(row)) half[row][column] = out[row];
  }
  for (int row = 0; row < kOut; ++row) {
    if (!out_rows.has(row)) continue;
    Floats out[kOut];
    of_row(half[row], out);
    for (int column = 0; column < kOut; ++column)
      if (out_columns.has(column)) write(row, column, out[column]);
  }
}

// ---- the product ----

// Rows of a result whose 2 vectors each, with 2 of b and 1 of a, fill the registers.
#if defined(__AVX512F__)
constexpr int kMaxRows = 12;
#else
constexpr int kMaxRows = 6;
#endif
constexpr int kSlab = 2 * kLanes;      // columns of the result that one pass makes
constexpr int kLine = 16;              // floats of a cache line
constexpr int kAhead = 64 * kColumns;  // of b: it may come from memory, as in a network of many layers

// The two operands of a product; a comes in blocks of 16 k.
struct Factors {
  const float *a, *b;
};

// c[row][0..kSlab) = or += the sum over k of a(row, k) * b[k][0..kSlab), and over all pairs of factors. a's blocks of
// 16 k lie `block` floats apart; inside one, a(row, k) lies at row * kRow + k * kStep. b: kColumns floats a k. c:
// kColumns floats a row.
template <int kRows, int kRow, int kStep, bool kAdd>
void multiply_slab(const Factors* factors, int pairs, int64_t block, int64_t depth, int slab, float* c) {
  Floats sum[kRows][2];
  for (int row = 0; row < kRows; ++row)
    for (int half = 0; half < 2; ++half) sum[row][half] = Floats{};
  for (int pair = 0; pair < pairs; ++pair) {
    const float *a = factors[pair].a, *b = factors[pair].b + slab;
    const auto step = [&](const float* x) __attribute__((always_inline)) {
      const Floats b0 = load(b, Floats{}), b1 = load(b + kLanes, Floats{});
      for (int line = 0; line < kSlab; line += kLine) __builtin_prefetch(b + kAhead + line);
#pragma GCC unroll 16
      for (int row = 0; row < kRows; ++row) {
        const Floats factor = broadcast<Floats>(x[row * kRow]);
        sum[row][0] += factor * b0;
        sum[row][1] += factor * b1;
      }
      b += kColumns;
    };
    int64_t rest = depth;
    for (; rest >= kPanel; rest -= kPanel, a += block) {
#pragma GCC unroll 4
      for (int k = 0; k < kPanel; ++k) step(a + k * kStep);
    }
    for (int k = 0; k < rest; ++k) step(a + k * kStep);
  }
  for (int row = 0; row < kRows; ++row)
    for (int half = 0; half < 2; ++half) {
      float* const to = c + row * kColumns + slab + half * kLanes;
      store(to, kAdd ? load(to, Floats{}) + sum[row][half] : sum[row][half]);  // last, so that sums of sums round less
    }
}

// The same for `rows` of 1 to kMaxRows and all kColumns columns.
template <int kRow, int kStep, bool kAdd>
INPAINT_FAST_INLINE void multiply(int64_t rows, const Factors* factors, int pairs, int64_t block, int64_t depth,
                                  float* c) {
  for (int slab = 0; slab < kColumns; slab += kSlab) switch (rows) {
#define INPAINT_FAST_ROWS(n)                                                                                 \
  case n:                                                                                                    \
    if constexpr (n <= kMaxRows) multiply_slab<n, kRow, kStep, kAdd>(factors, pairs, block, depth, slab, c); \
    break;
      INPAINT_FAST_ROWS(1)
      INPAINT_FAST_ROWS(2)
      INPAINT_FAST_ROWS(3)
      INPAINT_FAST_ROWS(4)
      INPAINT_FAST_ROWS(5)
      INPAINT_FAST_ROWS(6)
      INPAINT_FAST_ROWS(7)
      INPAINT_FAST_ROWS(8)
      INPAINT_FAST_ROWS(9)
      INPAINT_FAST_ROWS(10)
      INPAINT_FAST_ROWS(11)
      INPAINT_FAST_ROWS(12)
#undef INPAINT_FAST_ROWS
    }
}

// x as the sum of numbers of bfloat16, their bits as the upper halves: each the first 8 bits of what the ones before
// leave, so that none overflows. A NaN is one in the second part, an infinity gives one there.
INPAINT_FAST_INLINE void split(Floats x, UInt32s parts[kParts]) {
  for (int part = 0; part < kParts; ++part) {
    parts[part] = (UInt32s)x & 0xffff0000u;
    x -= (Floats)parts[part];
  }
}

// ---- the layouts ----

template <int kStage>
INPAINT_FAST_INLINE void exchange(Floats v[kLanes]) {  // one stage of a transposition: swaps blocks of kStage lanes
  Int32s low, high;
  for (int i = 0; i < kLanes; ++i) {
    low[i] = i & kStage ? kLanes + i - kStage : i;
    high[i] = i & kStage ? kLanes + i : i + kStage;
  }
  for (int i = 0; i < kLanes; ++i)
    if (!(i & kStage)) {
      const Floats a = v[i], b = v[i + kStage];
      v[i] = shuffled(a, b, low);
      v[i + kStage] = shuffled(a, b, high);
    }
}

// v[i][j] and v[j][i] change places.
INPAINT_FAST_INLINE void transpose(Floats v[kLanes]) {
  exchange<1>(v);
  exchange<2>(v);
  if constexpr (kLanes > 4) exchange<4>(v);
  if constexpr (kLanes > 8) exchange<8>(v);
}

// to[column * to_column + row * to_row] = from[row * from_row + column * from_column], rows being channels on one side.
// Fast where the columns lie together in `from` and the rows in `to`.
INPAINT_FAST_INLINE void transpose_copy(const float* from, int64_t from_row, int64_t from_column, float* to,
                                        int64_t to_row, int64_t to_column, int64_t rows, int64_t columns) {
  const bool fast = from_column == 1 && to_row == 1;
  const int64_t whole_rows = fast ? rows - rows % kLanes : 0, whole_columns = fast ? columns - columns % kLanes : 0;
  for (int64_t row = 0; row < whole_rows; row += kLanes)
    for (int64_t column = 0; column < whole_columns; column += kLanes) {
      Floats v[kLanes];
      for (int i = 0; i < kLanes; ++i) v[i] = load(from + (row + i) * from_row + column, Floats{});
      transpose(v);
      for (int i = 0; i < kLanes; ++i) store(to + (column + i) * to_column + row, v[i]);
    }
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = row < whole_rows ? whole_columns : 0; column < columns; ++column)
      to[column * to_column + row * to_row] = from[row * from_row + column * from_column];
}

}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
