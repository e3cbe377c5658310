#include "common/stage_clock.h"

#include <atomic>
#include <chrono>

namespace inpaint_fast {
namespace {

std::atomic<bool> running{false};

struct alignas(64) Sum {  // threads end different stages at a time
  std::atomic<int64_t> nanoseconds{0}, times{0};
} sums[kStages];

int64_t now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

}  // namespace

void run_stage_clock(bool run) { running.store(run); }

int64_t stage_begins() { return running.load(std::memory_order_relaxed) ? now() : 0; }

int64_t stage_ends(Stage stage, int64_t began) {
  if (began == 0) return 0;
  const int64_t ended = now();
  Sum& sum = sums[static_cast<int>(stage)];
  sum.nanoseconds.fetch_add(ended - began, std::memory_order_relaxed);
  sum.times.fetch_add(1, std::memory_order_relaxed);
  return ended;
}

StageTime time_of(Stage stage) {
  const Sum& sum = sums[static_cast<int>(stage)];
  return {sum.nanoseconds.load(), sum.times.load()};
}

}  // namespace inpaint_fast
