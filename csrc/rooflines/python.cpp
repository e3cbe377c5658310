// The rooflines of benchmarks/parts.py, each on threads of its own choice; who calls them holds the clock.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/python.h"
#include "rooflines/cpu/kernels.h"

namespace inpaint_fast {
namespace {

void check_rounds(int64_t rounds) {
  if (rounds < 1) throw std::invalid_argument("rounds: 1 or more is expected");
}

// What every thread adds by run(thread).
template <class Run>
int64_t on_threads(int64_t threads, const Run& run) {
  if (threads < 1 || threads > torch::stable::get_num_threads())
    throw std::invalid_argument("threads: 1 to torch.get_num_threads() is expected");
  std::atomic<int64_t> sum{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) sum += run(thread);
  });
  return sum;
}

int64_t computed(int64_t (*kernel)(int64_t rounds, float* numbers), int64_t threads, int64_t rounds) {
  check_rounds(rounds);
  return on_threads(threads, [&](int64_t) {
    float numbers[] = {1, 0.5f};  // where both loops tend to a number of that size
    return kernel(rounds, numbers);
  });
}

constexpr const char* kWays[] = {"plain", "ahead", "blocks", "streamed"};  // of Way

struct FloatArray {
  float* data;
  int64_t floats;
};

FloatArray floats_of(const pybind11::buffer& buffer, bool writable) {
  const pybind11::buffer_info info = buffer.request(writable);
  if (info.format != "f" || info.ndim != 1 || (info.size > 1 && info.strides[0] != 4))
    throw std::invalid_argument("contiguous vectors of float32 are expected");
  return {static_cast<float*>(info.ptr), info.size};
}

// Calls run(begin, end) `rounds` times for the share of `floats` that each thread has, and returns how many floats.
template <class Run>
int64_t over_shares(int64_t floats, int64_t rounds, const Run& run) {
  check_rounds(rounds);
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t share = floats / threads / kStreamStep * kStreamStep;
  if (share == 0) throw std::invalid_argument("256 floats or more are expected for each thread");
  return on_threads(threads, [&](int64_t thread) {
    for (int64_t round = 0; round < rounds; ++round) run(thread * share, (thread + 1) * share);
    return rounds * share;
  });
}

int64_t passed(const std::vector<pybind11::buffer>& read, const std::vector<pybind11::buffer>& rewritten,
               int64_t rounds, const std::string& way) {
  const auto known = std::find(std::begin(kWays), std::end(kWays), way);
  if (known == std::end(kWays)) throw std::invalid_argument("way: plain, ahead, blocks or streamed is expected");
  const size_t reads = read.size(), rewrites = rewritten.size();
  if (rewrites == 0 ? reads < 1 || reads > 4 : reads > 1 || rewrites > 3 || (reads == 0 && rewrites > 1))
    throw std::invalid_argument(
        "1 to 4 streams to read, 1 to rewrite, or 1 to read and 1 to 3 to rewrite are expected");
  Streams streams;
  streams.way = static_cast<Way>(known - std::begin(kWays));
  if (streams.way != Way::plain && (reads != 1 || rewrites < 2))
    throw std::invalid_argument("way: other than plain it takes 1 stream to read and 2 or 3 to rewrite");
  int64_t floats = INT64_MAX;
  const auto next = [&](const pybind11::buffer& buffer, bool writable) {
    const FloatArray array = floats_of(buffer, writable);
    floats = std::min(floats, array.floats);
    return array.data;
  };
  for (const auto& buffer : read) streams.read[streams.reads++] = next(buffer, false);
  for (const auto& buffer : rewritten) {
    float* const at = streams.rewritten[streams.rewrites++] = next(buffer, true);
    if (streams.way == Way::streamed && reinterpret_cast<uintptr_t>(at) % 64)
      throw std::invalid_argument("rewritten: streamed, vectors are expected to begin at a multiple of 64 bytes");
  }
  const auto kernel = INPAINT_FAST_CPU_KERNEL(pass);
  std::atomic<float> sink{0};  // so that what is read is used
  const auto run = [&](int64_t begin, int64_t end) { sink.store(kernel(streams, begin, end)); };
  return 4 * static_cast<int64_t>(reads + 2 * rewrites) * over_shares(floats, rounds, run);
}

int64_t copied(const pybind11::buffer& source, const pybind11::buffer& target, int64_t rounds) {
  const FloatArray from = floats_of(source, false), to = floats_of(target, true);
  if (from.data == to.data) throw std::invalid_argument("two buffers are expected");
  return 8 * over_shares(std::min(from.floats, to.floats), rounds, [&](int64_t begin, int64_t end) {
           memcpy(to.data + begin, from.data + begin, sizeof(float) * (end - begin));
         });
}

const FunctionsOfModule functions_of_rooflines([](pybind11::module_& m) {
  using pybind11::arg;
  m.def(
      "roofline_multiply_adds",
      [](int64_t threads, int64_t rounds) { return computed(INPAINT_FAST_CPU_KERNEL(multiply_adds), threads, rounds); },
      arg("threads"), arg("rounds"), "Fused multiply-adds of float32 on registers; returns how many were computed.");
  m.def(
      "roofline_roots",
      [](int64_t threads, int64_t rounds) { return computed(INPAINT_FAST_CPU_KERNEL(roots), threads, rounds); },
      arg("threads"), arg("rounds"), "Divisions by a root, of float32 on registers; returns how many were computed.");
  m.def("roofline_pass", &passed, arg("read"), arg("rewritten"), arg("rounds"), arg("way") = "plain",
        "Passes over vectors of float32 side by side, each of torch's threads over its share `rounds` times: some are "
        "read, some rewritten as they are. way: line by line of all of them (plain), so and asked for ahead (ahead), "
        "asked for in blocks of one after the other (blocks), or written past the caches (streamed). Returns the bytes "
        "read and written.");
  m.def("roofline_copy", &copied, arg("source"), arg("target"), arg("rounds"),
        "memcpy from one vector to another, likewise. Returns the bytes read and written.");
});

}  // namespace
}  // namespace inpaint_fast
