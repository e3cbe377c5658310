// Kernels that test what the emulation has of sm_90a. Each C function starts one and returns null, or what went wrong.
#include <string>

#include "common/device.h"
#include "common/launch.h"
#include "common/tensor_map.h"
#include "common/tma.h"
#include "common/warpgroup_mma.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace inpaint_fast;
using device::Half;

// What a kernel does wrong.
enum Fault : int {
  kNone,
  kNoBarrierFence,
  kTooFewBytes,
  kTooManyBytes,
  kWrongParity,
  kNoWait,
  kTwoArrivals,
  kNoProductFence,
  kSumsTooEarly,
  kTileOverwritten,
  kThreeWarps,
  kDifferentTiles,
  kWrongLayout,
  kMisaligned,
  kNeverWaited,
  kOneThreadMissing,
  kStridesSwapped,
  kUnnamedBits
};

template <class Start>
const char* guarded(Start start) {
  static std::string message;
  try {
    start();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

__device__ char* aligned_shared() {
  char* const shared = dynamic_shared<char>();
  return shared + (-device::shared_address(shared) & (device::kAtomBytes - 1));
}

__device__ void wait(uint64_t* barrier, unsigned parity) {
  while (!device::mbarrier_try_wait(barrier, parity)) {
  }
}

// out: the shared memory where the box at (c0, ..., c3) has come to, as it lies there.
__global__ void box_kernel(const __grid_constant__ CUtensorMap map, const int* at, unsigned bytes, float* out,
                           int fault) {
  char* const shared = aligned_shared();
  uint64_t* const barrier = reinterpret_cast<uint64_t*>(shared + bytes);
  if (threadIdx.x == 0) {
    device::mbarrier_init(barrier, 1);
    if (fault != kNoBarrierFence) device::fence_mbarrier_init();
    device::fence_proxy_async();
    device::mbarrier_arrive_expect_tx(barrier, bytes + (fault == kTooManyBytes) * 16 - (fault == kTooFewBytes) * 16);
    device::tma_load_4d(shared + (fault == kMisaligned) * 16, map, barrier, at[0], at[1], at[2], at[3]);
    if (fault == kTwoArrivals) device::mbarrier_arrive(barrier);
  }
  __syncthreads();
  if (fault != kNoWait && fault != kNeverWaited) wait(barrier, fault == kWrongParity);
  if (fault != kNeverWaited)
    for (unsigned i = threadIdx.x; i < bytes / 4; i += blockDim.x) out[i] = reinterpret_cast<const float*>(shared)[i];
  __syncthreads();
  if (fault == kNoWait) wait(barrier, 0);
}

constexpr int kPlaneBytes = 64 * 128;  // a box of a product: 64 rows, of 128 bytes along k, or 64 k, of 64 rows

// The descriptor of the k-th of the products of a tile.
template <bool kMnMajor>
__device__ uint64_t descriptor_of(const char* tile, int k, int fault) {
  uint64_t bits = kMnMajor ? device::mn_major_descriptor(tile, kPlaneBytes) + (k * 2 * device::kAtomBytes >> 4)
                           : device::tile_descriptor(tile) + (k * device::kProductBytes >> 4);
  if (fault == kStridesSwapped) bits = (bits & ~0x3fff3fff0000) | (bits >> 16 & 0x3fff0000) | (bits & 0x3fff0000) << 16;
  if (fault == kWrongLayout) bits ^= uint64_t{2} << 62;
  if (fault == kUnnamedBits) bits |= uint64_t{1} << 52;
  if (fault == kMisaligned) bits += 128 >> 4;
  if (fault == kDifferentTiles && threadIdx.x == 70) bits += 8;
  return bits;
}

// out[64][N] = a[64][k] * b[N][k], k being 4 products; in memory a is [64][k], b [N][k], or if MN-major [k][64],
// [k][N].
template <class T, int N, bool kMnMajor>
__global__ void product_kernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, float* out,
                               int fault) {
  char *const rows = aligned_shared(), *const columns = rows + kPlaneBytes;
  uint64_t* const barrier = reinterpret_cast<uint64_t*>(columns + N * 128);
  if (threadIdx.x == 0) {
    device::mbarrier_init(barrier, 1);
    device::fence_mbarrier_init();
    device::fence_proxy_async();
    device::mbarrier_arrive_expect_tx(barrier, (64 + N) * 128);
    device::tma_load_3d(rows, a, barrier, 0, 0, 0);
    for (int at = 0; at < N; at += 64)
      device::tma_load_3d(columns + at * 128, b, barrier, kMnMajor ? at : 0, kMnMajor ? 0 : at, 0);
  }
  __syncthreads();
  wait(barrier, 0);
  if (fault == kThreeWarps && threadIdx.x >= 96) return;
  float sums[N / 2] = {};
  if (fault != kNoProductFence) device::wgmma_fence();
  for (int k = 0; k < 4; ++k) {
    const uint64_t of_a = descriptor_of<kMnMajor>(rows, k, fault), of_b = descriptor_of<kMnMajor>(columns, k, fault);
    if constexpr (sizeof(T) == 2)
      device::wgmma_k16<T, kMnMajor>(sums, of_a, of_b);
    else
      device::wgmma_k8_tf32(sums, of_a, of_b);
  }
  device::wgmma_commit();
  if (fault == kTileOverwritten) {
    __syncthreads();
    reinterpret_cast<uint64_t*>(rows)[threadIdx.x] = ~uint64_t{0};
  }
  if (fault != kSumsTooEarly) device::wgmma_wait<0>();
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, warp = threadIdx.x / 32;
  for (int i = 0; i < N / 2; ++i) out[(16 * warp + g + i / 2 % 2 * 8) * N + i / 4 * 8 + 2 * t + i % 2] = sums[i];
  if (fault == kSumsTooEarly) device::wgmma_wait<0>();
}

// Half of the threads exchange numbers by a barrier of their own while the others have returned.
__global__ void named_barrier_kernel(const float* in, float* out, int fault) {
  float* const part = dynamic_shared<float>();
  if (threadIdx.x >= 64) return;
  part[threadIdx.x] = in[threadIdx.x];
  if (fault != kOneThreadMissing || threadIdx.x != 5) device::barrier_sync(1, 64);
  out[threadIdx.x] = part[63 - threadIdx.x];
}

template <class T, int N, bool kMnMajor = false>
const char* product(CUtensorMapDataType type, const void* a, const void* b, float* out, int fault) {
  constexpr uint64_t kRow = 128 / sizeof(T);
  const auto map = [=](const char* name, const void* data, uint64_t side) {
    const uint64_t along = kMnMajor ? side : kRow, rows = kMnMajor ? 64 : side;
    return tensor_map<3>(name, type, data, {along, rows, 1}, {along * sizeof(T), rows * along * sizeof(T)},
                         {static_cast<uint32_t>(kRow), 64, 1}, {1, 1, 1});
  };
  return guarded([&] {
    launch("product", product_kernel<T, N, kMnMajor>, 1, 128, 1024 + (64 + N) * 128 + 8, nullptr, map("a", a, 64),
           map("b", b, N), out, fault);
  });
}

}  // namespace

EXPORT const char* half_product_64(const void* a, const void* b, float* out, int64_t fault) {
  return product<Half, 64>(CU_TENSOR_MAP_DATA_TYPE_FLOAT16, a, b, out, static_cast<int>(fault));
}
EXPORT const char* bfloat16_product_128(const void* a, const void* b, float* out, int64_t fault) {
  return product<device::BFloat16, 128>(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, a, b, out, static_cast<int>(fault));
}
EXPORT const char* tf32_product_64(const void* a, const void* b, float* out, int64_t fault) {
  return product<float, 64>(CU_TENSOR_MAP_DATA_TYPE_TFLOAT32, a, b, out, static_cast<int>(fault));
}
EXPORT const char* mn_major_half_product_128(const void* a, const void* b, float* out, int64_t fault) {
  return product<Half, 128, true>(CU_TENSOR_MAP_DATA_TYPE_FLOAT16, a, b, out, static_cast<int>(fault));
}
EXPORT const char* mn_major_bfloat16_product_64(const void* a, const void* b, float* out, int64_t fault) {
  return product<device::BFloat16, 64, true>(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, a, b, out, static_cast<int>(fault));
}
// A box of float32 pictures [images][height][width][channels], the strides in bytes, innermost first as all of these;
// of pixels `step` apart.
EXPORT const char* box(const float* data, const int64_t* sizes, const int64_t* strides, const int64_t* box,
                       const int* at, float* out, int64_t tf32, int64_t step, int64_t fault) {
  return guarded([&] {
    uint64_t all[4], apart[3];
    uint32_t some[4], bytes = 4;
    for (int i = 0; i < 4; ++i) all[i] = sizes[i], some[i] = static_cast<uint32_t>(box[i]), bytes *= some[i];
    for (int i = 0; i < 3; ++i) apart[i] = strides[i];
    const uint32_t one_of = static_cast<uint32_t>(step);
    const CUtensorMap map =
        tensor_map<4>("the data", tf32 ? CU_TENSOR_MAP_DATA_TYPE_TFLOAT32 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32, data, all,
                      apart, some, {1, one_of, one_of, 1});
    launch("box", box_kernel, 1, 32, 2048 + bytes, nullptr, map, at, bytes, out, static_cast<int>(fault));
  });
}
EXPORT const char* named_barrier(const float* in, float* out, int64_t fault) {
  return guarded(
      [&] { launch("named_barrier", named_barrier_kernel, 2, 96, 256, nullptr, in, out, static_cast<int>(fault)); });
}
