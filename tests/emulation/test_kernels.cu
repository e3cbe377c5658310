// Kernels that test the emulation itself. Each C function starts one and returns null, or what went wrong.
#include <string>

#include "common/device.h"
#include "common/launch.h"
#include "common/warp_mma.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using inpaint_fast::dynamic_shared;
using inpaint_fast::launch;

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

// Each block turns its part of the data round.
__global__ void reverse_kernel(const float* in, float* out) {
  float* const part = dynamic_shared<float>();
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  part[threadIdx.x] = in[i];
  __syncthreads();
  out[i] = part[blockDim.x - 1 - threadIdx.x];
}

// The same without a barrier: a fault.
__global__ void racing_reverse_kernel(const float* in, float* out) {
  float* const part = dynamic_shared<float>();
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  part[threadIdx.x] = in[i];
  out[i] = part[blockDim.x - 1 - threadIdx.x];
}

// Rows of 64: what each thread got from each kind of exchange.
__global__ void exchange_kernel(int* out) {
  const int i = threadIdx.x;
  out[i] = __shfl_down_sync(~0u, i, 3);
  out[64 + i] = __shfl_up_sync(~0u, i, 3);
  out[128 + i] = __shfl_xor_sync(~0u, i, 5);
  out[192 + i] = __shfl_sync(~0u, i, 7);
  out[256 + i] = __shfl_down_sync(~0u, i, 3, 8);
  out[320 + i] = __ballot_sync(~0u, i % 3 == 0);
  out[384 + i] = __any_sync(~0u, i == 40) * 2 + __all_sync(~0u, i < 32);
  // The halves of a warp on their own, and in different numbers.
  const unsigned half = i & 16 ? 0xffff0000u : 0xffffu;
  int sum = i;
  for (int step = 0; step < (i & 16 ? 1 : 4); ++step) sum += __shfl_xor_sync(half, sum, 1 << step, 16);
  __syncwarp();
  out[448 + i] = sum;
}

__global__ void block_sum_kernel(const double* in, double* out) {
  const double sum = inpaint_fast::device::block_sum(in[blockIdx.x * blockDim.x + threadIdx.x]);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

__global__ void index_kernel(int* out) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 1000 + thread;
}

__global__ void divergent_kernel() {
  if (threadIdx.x < 5) return;
  __syncthreads();
}

__global__ void absent_lane_kernel(int* out) {
  if (threadIdx.x == 9) return;
  out[threadIdx.x] = __shfl_down_sync(~0u, static_cast<int>(threadIdx.x), 1);
}

__global__ void left_out_lane_kernel(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffu, static_cast<int>(threadIdx.x), 16);
}

// ---- a warp's matrix products and copies ----

using inpaint_fast::device::BFloat16;
using inpaint_fast::device::Half;

template <class T>
__device__ uint32_t pair_of(T first, T second) {
  const T pair[2] = {first, second};
  uint32_t bits;
  memcpy(&bits, pair, sizeof bits);
  return bits;
}

__device__ void add_sums(float* out, const float (&c)[4]) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}

// out[16][8] = a[16][16] * b[16][8], each lane with the numbers that the PTX ISA gives it.
template <class T>
__global__ void product_kernel(const T* a, const T* b, float* out) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const auto of_a = [&](int row, int k) { return pair_of(a[row * 16 + k], a[row * 16 + k + 1]); };
  const auto of_b = [&](int k) { return pair_of(b[k * 8 + g], b[(k + 1) * 8 + g]); };
  const uint32_t factor[4] = {of_a(g, 2 * t), of_a(g + 8, 2 * t), of_a(g, 2 * t + 8), of_a(g + 8, 2 * t + 8)};
  float c[4] = {};
  inpaint_fast::device::mma_m16n8k16<T>(c, factor, of_b(2 * t), of_b(2 * t + 8));
  add_sums(out, c);
}

// out[16][8] = a[16][8] * b[8][8] in TF32.
__global__ void tf32_product_kernel(const float* a, const float* b, float* out) {
  using inpaint_fast::device::to_tf32;
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const auto bits = [](float x) {
    uint32_t y;
    memcpy(&y, &x, sizeof y);
    return to_tf32(y);
  };
  const uint32_t factor[4] = {bits(a[g * 8 + t]), bits(a[(g + 8) * 8 + t]), bits(a[g * 8 + t + 4]),
                              bits(a[(g + 8) * 8 + t + 4])};
  float c[4] = {};
  inpaint_fast::device::mma_m16n8k8_tf32(c, factor, bits(b[t * 8 + g]), bits(b[(t + 4) * 8 + g]));
  add_sums(out, c);
}

// The same product as product_kernel's, by way of shared memory: 8x8 matrices of a that lie row by row, or column by
// column (transposed), and of b that lie column by column, or row by row.
__global__ void shared_product_kernel(const Half* a, const Half* b, float* out, bool transposed) {
  Half* const matrices = dynamic_shared<Half>();  // [6][8][8]: 4 of a, in the order of its registers, and 2 of b
  const int lane = threadIdx.x;
  for (int i = lane; i < 6 * 64; i += 32) {
    const int matrix = i / 64, line = i % 64 / 8, at = i % 8;
    const int first = transposed ? at : line, second = transposed ? line : at;  // a: row and k; b: column and k
    const int k = (matrix < 4 ? matrix / 2 : matrix - 4) * 8 + second;
    matrices[i] = matrix < 4 ? a[(matrix % 2 * 8 + first) * 16 + k] : b[k * 8 + first];
  }
  __syncthreads();
  uint32_t of_a[4], of_b[4];
  const Half *const rows = matrices + lane * 8, *const columns = matrices + 256 + lane % 16 * 8;
  if (transposed) {
    inpaint_fast::device::ldmatrix_x4_transposed(of_a, rows);
    inpaint_fast::device::ldmatrix_x4_transposed(of_b, columns);
  } else {
    inpaint_fast::device::ldmatrix_x4(of_a, rows);
    inpaint_fast::device::ldmatrix_x4(of_b, columns);
  }
  float c[4] = {};
  inpaint_fast::device::mma_m16n8k16<Half>(c, of_a, of_b[0], of_b[1]);
  add_sums(out, c);
}

// out[4 i...] is part i of in, by a copy of bytes[i]: two groups, of which the last `unfinished` are not waited for.
__global__ void copy_kernel(const float* in, const int* bytes, float* out, int unfinished, int stride) {
  float* const shared = dynamic_shared<float>();
  const int i = threadIdx.x, half = blockDim.x * 4 * stride;
  for (int group = 0; group < 2; ++group) {
    const int at = (group * blockDim.x + i) * 4;
    inpaint_fast::device::cp_async_16(shared + group * half + i * 4 * stride, in + at, bytes[group * blockDim.x + i]);
    inpaint_fast::device::cp_async_commit();
  }
  if (unfinished == 0) inpaint_fast::device::cp_async_wait<0>();
  if (unfinished == 1) inpaint_fast::device::cp_async_wait<1>();
  __syncthreads();
  for (int group = 0; group < 2; ++group)
    for (int j = 0; j < 4; ++j) out[(group * blockDim.x + i) * 4 + j] = shared[group * half + i * 4 * stride + j];
  if (unfinished < 2) inpaint_fast::device::cp_async_wait<0>();
}

__global__ void conflicting_rows_kernel() {
  uint32_t r[4];
  inpaint_fast::device::ldmatrix_x4(r, dynamic_shared<float>() + threadIdx.x % 8 * 32);
}

}  // namespace

EXPORT const char* half_product(const Half* a, const Half* b, float* out) {
  return guarded([&] { launch("half_product", product_kernel<Half>, 1, 32, 0, nullptr, a, b, out); });
}
EXPORT const char* bfloat16_product(const BFloat16* a, const BFloat16* b, float* out) {
  return guarded([&] { launch("bfloat16_product", product_kernel<BFloat16>, 1, 32, 0, nullptr, a, b, out); });
}
EXPORT const char* tf32_product(const float* a, const float* b, float* out) {
  return guarded([&] { launch("tf32_product", tf32_product_kernel, 1, 32, 0, nullptr, a, b, out); });
}
EXPORT const char* shared_product(const Half* a, const Half* b, float* out, int64_t transposed) {
  return guarded([&] {
    launch("shared_product", shared_product_kernel, 1, 32, 6 * 64 * sizeof(Half), nullptr, a, b, out, transposed != 0);
  });
}
EXPORT const char* copy(const float* in, const int* bytes, float* out, int64_t threads, int64_t unfinished,
                        int64_t stride) {
  return guarded([&] {
    launch("copy", copy_kernel, 1, threads, threads * 32 * stride, nullptr, in, bytes, out,
           static_cast<int>(unfinished), static_cast<int>(stride));
  });
}
EXPORT const char* conflicting_rows() {
  return guarded([&] { launch("conflicting_rows", conflicting_rows_kernel, 1, 32, 1024, nullptr); });
}
EXPORT const char* reverse(const float* in, float* out, int blocks, int threads) {
  return guarded(
      [&] { launch("reverse", reverse_kernel, blocks, threads, threads * sizeof(float), nullptr, in, out); });
}
EXPORT const char* racing_reverse(const float* in, float* out, int blocks, int threads) {
  return guarded([&] {
    launch("racing_reverse", racing_reverse_kernel, blocks, threads, threads * sizeof(float), nullptr, in, out);
  });
}
EXPORT const char* reverse_with_shared(const float* in, float* out, int threads, int64_t shared_bytes) {
  return guarded([&] { launch("reverse", reverse_kernel, 1, threads, shared_bytes, nullptr, in, out); });
}
EXPORT const char* exchange(int* out) {
  return guarded([&] { launch("exchange", exchange_kernel, 1, 64, 0, nullptr, out); });
}
EXPORT const char* block_sum(const double* in, double* out, int blocks, int threads) {
  return guarded([&] { launch("block_sum", block_sum_kernel, blocks, threads, 0, nullptr, in, out); });
}
EXPORT const char* index(int* out) {
  return guarded([&] { launch("index", index_kernel, dim3(2, 3, 4), dim3(5, 2, 3), 0, nullptr, out); });
}
EXPORT const char* divergent() {
  return guarded([&] { launch("divergent", divergent_kernel, 2, 64, 0, nullptr); });
}
EXPORT const char* absent_lane(int* out) {
  return guarded([&] { launch("absent_lane", absent_lane_kernel, 1, 32, 0, nullptr, out); });
}
EXPORT const char* left_out_lane(int* out) {
  return guarded([&] { launch("left_out_lane", left_out_lane_kernel, 1, 32, 0, nullptr, out); });
}
