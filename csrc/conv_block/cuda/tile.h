// The product of two tiles in shared memory, as all of the blocks' CUDA kernels use it: which thread has which
// sums, how tiles lie in shared memory, and how the sums leave it.
//
// A step of a product takes kStepBytes of each row of the two factors (32 numbers of 16 bits, 16 of 32), all that one
// stage of the pipeline holds. Shared memory is moved in chunks of 16 bytes. Its 32 banks are 128 bytes wide, so 8
// lanes that move a chunk each never wait for one another where their chunks are different ones modulo 8. The places of
// chunks are permuted (by exclusive or with bits of their row) so that this holds for every access here:
//   rows     of kStepBytes, two to 128 bytes: written in full rows by 4 lanes each, read as one chunk of 8 rows
//   columns  of a pixel, a multiple of 128 bytes: written along a pixel, read as one chunk of 8 pixels (16 bits), as
//   two
//            chunks of 4 pixels (TF32), or along a pixel (float32)
//   sums     written as two chunks of 4 rows or along a row, read along a row or as one chunk of 8 rows
#pragma once

#include <type_traits>

#include "common/warp_mma.h"

namespace inpaint_fast {
namespace cuda {

using device::BFloat16;
using device::Half;
using device::load_pack;
using device::Pack;
using device::store_pack;
using device::to_compute;

constexpr int kMovingThreads = 256;  // a block of the kernels that only move numbers

// ---- how numbers are multiplied ----

// float32 as TF32 on the matrix units; Half and BFloat16 stand for themselves there.
struct Tf32 {};
// float32 as it is, on the plain units.
struct Ieee {};

template <class Math>
struct ElementOf {
  typedef std::conditional_t<sizeof(Math) == 2, Math, float> type;
};
template <class Math>
using Element = typename ElementOf<Math>::type;

// ---- tiles ----

constexpr int kStepBytes = 64;
constexpr int kStages = 4;
constexpr int kChunkBytes = 16;

// kRows x kColumns sums by kWarpsM x kWarpsN warps; kBlocks: blocks that a multiprocessor should hold at least, which
// bounds the registers of a thread.
template <int Rows, int Columns, int WarpsM, int WarpsN, int Blocks>
struct BlockTile {
  static constexpr int kRows = Rows, kColumns = Columns, kWarpsM = WarpsM, kWarpsN = WarpsN, kBlocks = Blocks;
  static constexpr int kThreads = 32 * WarpsM * WarpsN;
  static constexpr int kStageBytes = (Rows + Columns) * kStepBytes;
  static constexpr int kSumBytes = Rows * Columns * 4;  // they take the pipeline's place
  static constexpr int kSharedBytes = kStages * kStageBytes > kSumBytes ? kStages* kStageBytes : kSumBytes;
  static __device__ __forceinline__ void sync() { __syncthreads(); }
};

// The 8 places that row `row` gives to 8 chunks of 128 bytes: different for 8 rows, and for 4 rows of 2 chunks.
__device__ __forceinline__ int scattered(int row) { return (row & 3) << 1 | (row >> 2 & 1); }

// Byte offset of a chunk of a row of kStepBytes.
__device__ __forceinline__ int in_rows(int row, int chunk) {
  return row * kStepBytes + (chunk ^ (row >> 1 & 3)) * kChunkBytes;
}
// Byte offset of a chunk of a pixel of kBytes.
template <int kBytes>
__device__ __forceinline__ int in_columns(int pixel, int chunk) {
  return pixel * kBytes + (chunk ^ scattered(pixel)) * kChunkBytes;
}
// Index of a sum, in floats.
template <class BlockTile>
__device__ __forceinline__ int in_sums(int row, int column) {
  return row * BlockTile::kColumns + ((column >> 2) ^ scattered(row)) * 4 + (column & 3);
}

// ---- sums on the matrix units ----

// kAlong: the factors lie as rows along the summed index (forward); otherwise as columns, a row being one pixel, whose
// index is summed over (the weights' gradient).
template <class Math, class BlockTile, bool kAlong>
class Sums {
  static constexpr int kM = BlockTile::kRows / BlockTile::kWarpsM / 16,
                       kN = BlockTile::kColumns / BlockTile::kWarpsN / 8;
  static constexpr bool kTf32 = std::is_same<Math, Tf32>::value;
  static_assert(kN % 2 == 0, "ldmatrix loads two columns of 8 at once");
  float sums_[kM][kN][4] = {};

  static __device__ __forceinline__ int first_row() { return threadIdx.x / 32 / BlockTile::kWarpsN * (kM * 16); }
  static __device__ __forceinline__ int first_column() { return threadIdx.x / 32 % BlockTile::kWarpsN * (kN * 8); }

  // Lane i of ldmatrix names row i % 8 of matrix i / 8; the four are a's registers, or b's of two neighbouring tiles.
  static __device__ __forceinline__ void load(uint32_t (&a)[kM][4], uint32_t (&b)[kN / 2][4], const char* rows,
                                              const char* columns, int k) {
    const int lane = threadIdx.x % 32, row = lane % 8, low = lane / 8 % 2, high = lane / 16;
    if constexpr (kAlong) {
#pragma unroll
      for (int i = 0; i < kM; ++i)
        device::ldmatrix_x4(a[i], rows + in_rows(first_row() + 16 * i + 8 * low + row, 2 * k + high));
#pragma unroll
      for (int j = 0; j < kN / 2; ++j)
        device::ldmatrix_x4(b[j], columns + in_rows(first_column() + 16 * j + 8 * high + row, 2 * k + low));
    } else if constexpr (!kTf32) {
#pragma unroll
      for (int i = 0; i < kM; ++i)
        device::ldmatrix_x4_transposed(
            a[i], rows + in_columns<BlockTile::kRows * 2>(16 * k + 8 * high + row, first_row() / 8 + 2 * i + low));
#pragma unroll
      for (int j = 0; j < kN / 2; ++j)
        device::ldmatrix_x4_transposed(b[j], columns + in_columns<BlockTile::kColumns * 2>(
                                                           16 * k + 8 * low + row, first_column() / 8 + 2 * j + high));
    } else {  // ldmatrix transposes numbers of 16 bits alone
      const int g = lane / 4, t = lane % 4;
#pragma unroll
      for (int i = 0; i < kM; ++i)
#pragma unroll
        for (int r = 0; r < 4; ++r)
          a[i][r] = number<BlockTile::kRows>(rows, 8 * k + t + r / 2 * 4, first_row() + 16 * i + r % 2 * 8 + g);
#pragma unroll
      for (int j = 0; j < kN; ++j)
#pragma unroll
        for (int r = 0; r < 2; ++r)
          b[j / 2][j % 2 * 2 + r] = number<BlockTile::kColumns>(columns, 8 * k + t + 4 * r, first_column() + 8 * j + g);
    }
    if constexpr (kTf32) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int i = 0; i < kM; ++i) a[i][r] = device::to_tf32(a[i][r]);
#pragma unroll
        for (int j = 0; j < kN / 2; ++j) b[j][r] = device::to_tf32(b[j][r]);
      }
    }
  }

  template <int kSide>
  static __device__ __forceinline__ uint32_t number(const char* tile, int pixel, int channel) {
    const char* const chunk = tile + in_columns<kSide * 4>(pixel, channel / 4);
    return reinterpret_cast<const uint32_t*>(chunk)[channel % 4];
  }

 public:
  // Adds the product of one stage. Calls meanwhile() while its first numbers are on their way to registers.
  template <class Meanwhile>
  __device__ __forceinline__ void add(const char* rows, const char* columns, Meanwhile meanwhile) {
    constexpr int kUnrolled = kAlong || !kTf32 ? 2 : 1;  // the others take more registers to address
#pragma unroll kUnrolled
    for (int k = 0; k < 2; ++k) {
      uint32_t a[kM][4], b[kN / 2][4];
      load(a, b, rows, columns, k);
      if (k == 0) meanwhile();
#pragma unroll
      for (int i = 0; i < kM; ++i)
#pragma unroll
        for (int j = 0; j < kN; ++j) {
          if constexpr (kTf32)
            device::mma_m16n8k8_tf32(sums_[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
          else
            device::mma_m16n8k16<Math>(sums_[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }
  }

  __device__ __forceinline__ void leave(float* shared) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kN; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = in_sums<BlockTile>(first_row() + 16 * i + 8 * half + g, first_column() + 8 * j + 2 * t);
          store_pack<2>(shared + at, Pack<float, 2>{{sums_[i][j][2 * half], sums_[i][j][2 * half + 1]}});
        }
  }
};

// ---- sums on the plain units ----

// 8 lanes side by side have the columns, so that a chunk of rows is read once for 8 threads. Sums are kM x kN of a
// thread; with factors as rows they lie kLanesM and 8 apart, as columns in groups of 4.
template <class BlockTile, bool kAlong>
class Sums<Ieee, BlockTile, kAlong> {
  static constexpr int kLanesN = 8, kLanesM = BlockTile::kThreads / kLanesN;
  static constexpr int kM = BlockTile::kRows / kLanesM, kN = BlockTile::kColumns / kLanesN;
  static_assert(kM % 4 == 0 && kN % 4 == 0, "columns are read in groups of 4");
  typedef Pack<float, 4> Four;
  float sums_[kM][kN] = {};

  static __device__ __forceinline__ int row(int i) {
    const int lane = threadIdx.x / kLanesN;
    return kAlong ? lane + kLanesM * i : (lane + kLanesM * (i / 4)) * 4 + i % 4;
  }
  static __device__ __forceinline__ int column(int j) {
    const int lane = threadIdx.x % kLanesN;
    return kAlong ? lane + kLanesN * j : (lane + kLanesN * (j / 4)) * 4 + j % 4;
  }
  static __device__ __forceinline__ Four load(const char* chunk) {
    return load_pack<4>(reinterpret_cast<const float*>(chunk));
  }

 public:
  template <class Meanwhile>
  __device__ __forceinline__ void add(const char* rows, const char* columns, Meanwhile meanwhile) {
    meanwhile();
    if constexpr (kAlong) {
#pragma unroll 1
      for (int chunk = 0; chunk < kStepBytes / kChunkBytes; ++chunk) {
        Four a[kM];
#pragma unroll
        for (int i = 0; i < kM; ++i) a[i] = load(rows + in_rows(row(i), chunk));
#pragma unroll
        for (int j = 0; j < kN; ++j) {
          const Four b = load(columns + in_rows(column(j), chunk));
#pragma unroll
          for (int k = 0; k < 4; ++k)
#pragma unroll
            for (int i = 0; i < kM; ++i) sums_[i][j] += a[i].values[k] * b.values[k];
        }
      }
    } else {
#pragma unroll 2
      for (int pixel = 0; pixel < kStepBytes / 4; ++pixel) {
        Four a[kM / 4];
#pragma unroll
        for (int i = 0; i < kM / 4; ++i) a[i] = load(rows + in_columns<BlockTile::kRows * 4>(pixel, row(4 * i) / 4));
#pragma unroll
        for (int j = 0; j < kN; j += 4) {
          const Four b = load(columns + in_columns<BlockTile::kColumns * 4>(pixel, column(j) / 4));
#pragma unroll
          for (int i = 0; i < kM; ++i)
#pragma unroll
            for (int n = 0; n < 4; ++n) sums_[i][j + n] += a[i / 4].values[i % 4] * b.values[n];
        }
      }
    }
  }

  __device__ __forceinline__ void leave(float* shared) const {
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kN; j += kAlong ? 1 : 4) {
        float* const at = shared + in_sums<BlockTile>(row(i), column(j));
        if constexpr (kAlong)
          *at = sums_[i][j];
        else
          store_pack<4>(at, Four{{sums_[i][j], sums_[i][j + 1], sums_[i][j + 2], sums_[i][j + 3]}});
      }
  }
};

// ---- the pipeline ----

// Sums `steps` steps: load(step, rows, columns) starts the copies of the next step to a stage; it is called once for
// each, in order. Up to kStages - 1 steps are on their way while one is added. Afterwards the sums are in shared memory
// (in_sums), for all threads to read.
template <class Sums, class BlockTile, class Load>
__device__ __forceinline__ void sum_steps(int steps, char* shared, Load load) {
  Sums sums;
  int started = 0;
  const auto start = [&](int stage) {
    if (started < steps) {
      char* const rows = shared + stage * BlockTile::kStageBytes;
      load(rows, rows + BlockTile::kRows * kStepBytes);
      ++started;
    }
    device::cp_async_commit();  // an empty group at the end, so that the number of groups tells the number of steps
  };
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) start(stage);
  int stage = 0, free = kStages - 1;
  for (int step = 0; step < steps; ++step) {
    device::cp_async_wait<kStages - 2>();
    __syncthreads();  // this step's copies of all threads are there, and all have done with the stage before it
    const char* const rows = shared + stage * BlockTile::kStageBytes;
    sums.add(rows, rows + BlockTile::kRows * kStepBytes, [&] { start(free); });
    free = stage;
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
  device::cp_async_wait<0>();
  __syncthreads();
  sums.leave(reinterpret_cast<float*>(shared));
  __syncthreads();
}

}  // namespace cuda
}  // namespace inpaint_fast
