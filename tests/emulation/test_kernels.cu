// Kernels that test the emulation itself. Each C function starts one and returns null, or what went wrong.
#include <string>

#include "common/device.h"
#include "common/launch.h"

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

}  // namespace

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
