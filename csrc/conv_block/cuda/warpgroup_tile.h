// The product of two tiles in shared memory by sm_90a's code, as its kernels of the blocks use it: what tile.h is to
// sm_80's. One thread of a warp of its own, the producer, has boxes copied to the stages of a pipeline; one or two
// warpgroups, the consumers, multiply them where they lie and finish the block.
//
// A stage has 128 bytes for each row and column of the sums: what a step takes of the summed index. That is 64 numbers
// of 16 bits or 32 of TF32 where the factors go along it, 64 pixels where they go along the channels.
#pragma once

#include "common/launch.h"
#include "common/tma.h"
#include "common/warpgroup_mma.h"
#include "conv_block/cuda/tile.h"
#include "conv_block/problem.h"

namespace inpaint_fast {
namespace cuda {
namespace {

constexpr int kStepPixelsLog = 6, kStepPixels = 1 << kStepPixelsLog;  // where the factors go along the channels
constexpr int kPlaneChannels = 64;                                    // of 16 bits
constexpr int kPlaneBytes = kStepPixels * device::kAtomRowBytes;      // 64 channels of a step's pixels

// kRows x kColumns sums by kGroups warpgroups with a part of the rows each; kBlocks: of a multiprocessor, as many as
// its shared memory holds, which bounds the registers of a thread.
template <int Rows, int Columns, int Groups, int Stages, int Blocks>
struct WarpgroupTile {
  static constexpr int kRows = Rows, kColumns = Columns, kGroups = Groups, kStages = Stages, kBlocks = Blocks;
  static constexpr int kThreads = 128 * Groups;      // that multiply and finish
  static constexpr int kAllThreads = kThreads + 32;  // and the producer's warp, behind them
  static constexpr int kStageBytes = (Rows + Columns) * device::kAtomRowBytes;
  static constexpr int kSumBytes = Rows * Columns * 4;  // they take the pipeline's place
  static constexpr int kPipelineBytes = kStages * kStageBytes > kSumBytes ? kStages* kStageBytes : kSumBytes;
  static constexpr int kEpilogueBytes = kEpilogueRows * Columns * static_cast<int>(sizeof(float));
  // Stages begin at multiples of 1024, dynamic shared memory at one of 16.
  static constexpr int kSharedBytes = device::kAtomBytes + kPipelineBytes + kEpilogueBytes + 2 * kStages * 8;
  static_assert(Rows % (64 * Groups) == 0 && Rows <= 256, "whole products, and one box of pixels");
  static_assert(Blocks * (kSharedBytes + (1 << 10)) <= 228 << 10, "of which each block takes 1 KB for the system");
  // Of the consumers alone: the producer's warp has gone.
  static __device__ __forceinline__ void sync() { device::barrier_sync(1, kThreads); }
};

// Barriers of each stage: `full` completes when its boxes are there, `empty` when all warps of consumers have read
// them.
template <class BlockTile>
struct Pipeline {
  char* stages;
  uint64_t *full, *empty;

  explicit __device__ __forceinline__ Pipeline(char* stages)
      : stages(stages),
        full(reinterpret_cast<uint64_t*>(stages + BlockTile::kPipelineBytes + BlockTile::kEpilogueBytes)),
        empty(full + BlockTile::kStages) {}

  // That of the block, in its dynamic shared memory. By all of its threads, which may then use it.
  static __device__ __forceinline__ Pipeline begin() {
    char* const shared = dynamic_shared<char>();
    const Pipeline pipeline(shared + (-device::shared_address(shared) & (device::kAtomBytes - 1)));
    if (threadIdx.x == 0) pipeline.init();
    __syncthreads();
    return pipeline;
  }
  // By one thread; the others may use them after a __syncthreads().
  __device__ __forceinline__ void init() const {
#pragma unroll
    for (int stage = 0; stage < BlockTile::kStages; ++stage) {
      device::mbarrier_init(full + stage, 1);
      device::mbarrier_init(empty + stage, BlockTile::kThreads / 32);
    }
    device::fence_mbarrier_init();
    device::fence_proxy_async();
  }
  __device__ __forceinline__ char* rows(int stage) const { return stages + stage * BlockTile::kStageBytes; }
  __device__ __forceinline__ char* columns(int stage) const {
    return rows(stage) + BlockTile::kRows * device::kAtomRowBytes;
  }
  static __device__ __forceinline__ void wait(uint64_t* barrier, unsigned parity) {
    while (!device::mbarrier_try_wait(barrier, parity)) {
    }
  }
  // By the producer, before it has a stage's boxes copied: waits until nobody reads it any more, and announces them.
  // The value is the barrier that they complete.
  __device__ __forceinline__ uint64_t* refill(int stage, unsigned parity) const {
    wait(empty + stage, parity ^ 1);  // true at once in the first round
    device::mbarrier_arrive_expect_tx(full + stage, BlockTile::kStageBytes);
    return full + stage;
  }
};

// The stage of a step, and the parity of its round through the stages.
template <class BlockTile>
struct Turn {
  int stage = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage < BlockTile::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// ---- the consumers' sums ----

// kAlong, as of Sums (tile.h): the factors go along the summed index, K-major as PTX calls it; otherwise, 16 bits
// alone, along the channels, MN-major: 64 of them have a plane of the stage to themselves, whose rows are the step's
// pixels.
template <class Math, class BlockTile, bool kAlong>
class WarpgroupSums {
  static constexpr int kM = BlockTile::kRows / BlockTile::kGroups / 64;
  static constexpr int kProductRows = 64;
  // Either way what one product has of the rows, or of the channels, is as many bytes from the next.
  static constexpr int kProductRowBytes = kProductRows * device::kAtomRowBytes;
  static_assert(kAlong || kProductRowBytes == kPlaneBytes, "a product's channels are a plane");
  // From the products of a step to the next ones.
  static constexpr int kProducts = device::kAtomRowBytes / device::kProductBytes;
  static constexpr int kNextBytes = kAlong ? device::kProductBytes : device::kProductK * device::kAtomRowBytes;
  float sums_[kM][BlockTile::kColumns / 2] = {};

  static __device__ __forceinline__ int first_row() { return threadIdx.x / 128 * (kM * kProductRows); }

  static __device__ __forceinline__ void multiply(float (&sums)[BlockTile::kColumns / 2], uint64_t a, uint64_t b) {
    if constexpr (std::is_same<Math, Tf32>::value) {
      static_assert(kAlong, "TF32 is K-major alone");
      device::wgmma_k8_tf32(sums, a, b);
    } else {
      device::wgmma_k16<Math, !kAlong>(sums, a, b);
    }
  }
  static __device__ __forceinline__ uint64_t descriptor(const char* tile) {
    return kAlong ? device::tile_descriptor(tile) : device::mn_major_descriptor(tile, kPlaneBytes);
  }

 public:
  // The products of one step are under way while the next is waited for: a stage is given back one step later.
  __device__ __forceinline__ void add(int steps, const Pipeline<BlockTile>& pipeline) {
    const uint64_t first_a = descriptor(pipeline.rows(0) + first_row() * device::kAtomRowBytes);
    const uint64_t first_b = descriptor(pipeline.columns(0));
#pragma unroll
    for (int i = 0; i < kM; ++i) device::keep_in_place(sums_[i]);
    Turn<BlockTile> turn;
    for (int step = 0, before = 0; step < steps; ++step) {
      const uint64_t moved = static_cast<uint64_t>(turn.stage * BlockTile::kStageBytes >> 4);
      pipeline.wait(pipeline.full + turn.stage, turn.parity);
      device::wgmma_fence();
#pragma unroll
      for (int at = 0; at < kProducts * kNextBytes; at += kNextBytes)
#pragma unroll
        for (int i = 0; i < kM; ++i)
          multiply(sums_[i], first_a + moved + ((i * kProductRowBytes + at) >> 4), first_b + moved + (at >> 4));
      device::wgmma_commit();
      device::wgmma_wait<1>();
      if (step > 0 && threadIdx.x % 32 == 0) device::mbarrier_arrive(pipeline.empty + before);
      before = turn.stage;
      turn.next();
    }
    device::wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < kM; ++i) device::keep_in_place(sums_[i]);
  }

  __device__ __forceinline__ void leave(float* shared) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < BlockTile::kColumns / 8; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = in_sums<BlockTile>(first_row() + kProductRows * i + 16 * warp + 8 * half + g, 8 * j + 2 * t);
          const float* const two = sums_[i] + 4 * j + 2 * half;
          store_pack<2>(shared + at, Pack<float, 2>{{two[0], two[1]}});
        }
  }
};

// ---- what there is ----

#ifdef INPAINT_FAST_SM90A
constexpr bool kHasSm90a = true;
#else
constexpr bool kHasSm90a = false;
#endif

}  // namespace
}  // namespace cuda
}  // namespace inpaint_fast
