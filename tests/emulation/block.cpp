// A thread block on the CPU: its threads are fibers of one thread of the host, which runs one until that waits or
// returns and then takes the next. What a wait needs is decided here, when its last thread arrives.
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "emulated_block.h"
#include "emulated_warp_mma.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kPlainSharedBytes = 48 << 10, kMaxSharedBytes = 227 << 10;
constexpr uint32_t kSharedBegin = 1024 + 16;  // of dynamic shared memory, in a multiprocessor's
constexpr int kVote = -1;

enum class State { ready, at_block_barrier, at_warp_barrier, at_condition, returned };

// A copy to shared memory that has been started and not been waited for.
struct Copy {
  void* shared;
  const void* global;
  int bytes;
  unsigned group;  // the number of groups committed before its own
};

struct Fiber {
  void* stack = nullptr;
  jmp_buf context;
  State state = State::returned;
  const char* what = "";         // of the condition
  std::function<bool()> wanted;  // the condition
  unsigned mask = 0;             // of the warp barrier
  int source = 0;                // the lane whose value is wanted, or kVote
  uint64_t value = 0;            // handed in, then the answer
  unsigned handed_in = 0;        // LaneNumbers
  std::vector<Copy> copies;
  unsigned groups = 0;              // of copies, committed
  std::vector<const void*> copied;  // where to, all of this block

  Fiber();
  ~Fiber() { munmap(stack, kStackBytes); }
  Fiber(const Fiber&) = delete;
};

std::vector<std::unique_ptr<Fiber>> fibers;  // by thread index; they outlive a launch, for they are dear to make
jmp_buf scheduler;
unsigned current = 0;    // the thread that runs
bool backwards = false;  // the order in which they do
const std::function<void()>* body = nullptr;
std::exception_ptr failure;
std::vector<uint64_t> shared;
std::vector<uint64_t> launches;  // blocks, threads and bytes of dynamic shared memory of each, one after the other
LaneNumbers lane_numbers[2][kMaxThreads];  // what each thread handed in last, and before
std::set<const void*> large_shared;        // kernels that may have more dynamic shared memory than usual

// _setjmp and _longjmp: switches by ucontext would make a system call each.
void wait_for_scheduler() {
  if (_setjmp(fibers[current]->context) == 0) _longjmp(scheduler, 1);
}

void live() {
  for (;;) {
    try {
      (*body)();
    } catch (...) {
      failure = std::current_exception();
    }
    fibers[current]->state = State::returned;
    wait_for_scheduler();
  }
}

ucontext_t maker;

// Runs up to the point where the first body can begin.
void begin_life() {
  Fiber& self = *fibers[current];
  if (_setjmp(self.context) == 0) setcontext(&maker);
  live();
}

Fiber::Fiber() {
  stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack == MAP_FAILED) throw std::bad_alloc();
}

void make_fibers(unsigned count) {
  while (fibers.size() < count) {
    fibers.emplace_back(new Fiber);
    current = fibers.size() - 1;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fibers[current]->stack;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, begin_life, 0);
    swapcontext(&maker, &context);
  }
}

void resume(unsigned thread) {
  current = thread;
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
  if (_setjmp(scheduler) == 0) _longjmp(fibers[thread]->context, 1);
}

std::string where(const uint3& at) {
  std::ostringstream text;
  text << "(" << at.x << ", " << at.y << ", " << at.z << ")";
  return text.str();
}

// Lets the threads of a block barrier go once all have come.
void release_block() {
  const unsigned count = thread_count();
  for (unsigned i = 0; i < count; ++i)
    if (fibers[i]->state != State::at_block_barrier) return;
  for (unsigned i = 0; i < count; ++i) fibers[i]->state = State::ready;
}

// Lets the lanes of the current thread's warp barrier go once all have come, each with its answer.
void release_warp() {
  const unsigned first = current / warpSize * warpSize, mask = fibers[current]->mask;
  uint64_t values[warpSize] = {};
  unsigned votes = 0;
  // From the lane on that runs next: where it has not come, there is nothing more to see.
  for (int i = 1; i <= warpSize; ++i) {
    const int lane = static_cast<int>(current - first + (backwards ? warpSize - i : i)) % warpSize;
    if (!(mask >> lane & 1)) continue;
    const unsigned thread = first + lane;
    if (thread >= thread_count() || fibers[thread]->state == State::returned)
      fail("thread " + std::to_string(current) + " waits at a warp barrier for lane " + std::to_string(lane) +
           ", which is not there or has returned");
    if (fibers[thread]->state != State::at_warp_barrier || fibers[thread]->mask != mask) return;
    values[lane] = fibers[thread]->value;
    votes |= static_cast<unsigned>(values[lane] != 0) << lane;
  }
  for (int lane = 0; lane < warpSize; ++lane) {
    if (!(mask >> lane & 1)) continue;
    Fiber& fiber = *fibers[first + lane];
    if (fiber.source != kVote && !(mask >> fiber.source & 1))
      fail("lane " + std::to_string(lane) + " reads lane " + std::to_string(fiber.source) +
           ", which its shuffle's mask leaves out");
    fiber.value = fiber.source == kVote ? votes : values[fiber.source];
    fiber.state = State::ready;
  }
}

// 8 lanes move a chunk of 16 bytes each at a time, over all 32 banks: the chunks must differ modulo 8.
template <class ChunkOf>
void check_banks(const char* what, ChunkOf chunk_of) {
  unsigned taken = 0;
  for (int lane = 0; lane < 8; ++lane) taken |= 1u << (reinterpret_cast<uintptr_t>(chunk_of(lane)) / 16 % 8);
  if (taken != 0xff) fail(std::string("bank conflict: 8 lanes ") + what + " chunks of the same banks");
}

// The copies of 8 lanes that made as many of them.
void check_copies(unsigned first) {
  const size_t count = fibers[first]->copied.size();
  for (int lane = 0; lane < 8; ++lane)
    if (fibers[first + lane]->copied.size() != count) return;
  for (size_t i = 0; i < count; ++i) check_banks("copy to", [&](int lane) { return fibers[first + lane]->copied[i]; });
}

uint64_t warp_barrier(unsigned mask, uint64_t value, int source) {
  Fiber& self = *fibers[current];
  self.state = State::at_warp_barrier;
  self.mask = mask;
  self.value = value;
  self.source = source;
  wait_for_scheduler();
  return self.value;
}

// No thread can go on and not all have returned.
[[noreturn]] void report_deadlock() {
  unsigned waiting = 0, in_warp = 0, returned = 0;
  std::map<std::string, unsigned> others;
  for (unsigned i = 0; i < thread_count(); ++i) {
    waiting += fibers[i]->state == State::at_block_barrier;
    in_warp += fibers[i]->state == State::at_warp_barrier;
    returned += fibers[i]->state == State::returned;
    if (fibers[i]->state == State::at_condition) ++others[fibers[i]->what];
  }
  std::ostringstream text;
  text << (others.empty() ? "divergent barrier" : "deadlock") << ": of " << thread_count() << " threads " << waiting
       << " wait at __syncthreads, ";
  for (const auto& each : others) text << each.second << " for " << each.first << ", ";
  text << in_warp << " at a warp barrier, and " << returned << " have returned";
  fail(text.str());
}

// Up to where it waits or returns; true when it has returned.
bool run_thread(unsigned thread) {
  resume(thread);
  if (failure) std::rethrow_exception(failure);
  switch (fibers[thread]->state) {
    case State::at_block_barrier:
      release_block();
      return false;
    case State::at_warp_barrier:
      release_warp();
      return false;
    case State::at_condition:
      return false;
    default:
      if (!fibers[thread]->copies.empty())
        fail("thread " + std::to_string(thread) + " has returned with copies to shared memory under way");
      return true;
  }
}

void run_block() {
  const unsigned count = thread_count();
  for (unsigned i = 0; i < count; ++i) {
    fibers[i]->state = State::ready;
    fibers[i]->handed_in = fibers[i]->groups = 0;
    fibers[i]->copied.clear();
  }
  std::fill(shared.begin(), shared.end(), ~uint64_t{0});  // NaN in every type: nothing is there before it is written
  begin_async();
  // Every other block runs its threads backwards, so that what lacks a barrier fails in one of them.
  backwards = (blockIdx.x + blockIdx.y + blockIdx.z) % 2;
  // A warp runs as far as it can before the next one begins, for the same reason.
  const unsigned warps = (count + warpSize - 1) / warpSize;
  for (unsigned returned = 0; returned < count;) {
    bool progress = false;
    for (unsigned i = 0; i < warps; ++i) {
      const unsigned first = (backwards ? warps - 1 - i : i) * warpSize, lanes = std::min(count - first, 32u);
      for (bool again = true; again;) {
        again = false;
        for (unsigned lane = 0; lane < lanes; ++lane) {
          const unsigned thread = first + (backwards ? lanes - 1 - lane : lane);
          if (fibers[thread]->state == State::at_condition && fibers[thread]->wanted())
            fibers[thread]->state = State::ready;
          if (fibers[thread]->state != State::ready) continue;
          again = progress = true;
          returned += run_thread(thread);
        }
      }
    }
    if (!progress) report_deadlock();
  }
  for (unsigned first = 0; first + 8 <= count; first += 8) check_copies(first);
  end_async();
}

}  // namespace

void fail(const std::string& what) { throw std::runtime_error("emulation: block " + where(blockIdx) + ": " + what); }

unsigned current_thread() { return current; }

unsigned thread_count() { return blockDim.x * blockDim.y * blockDim.z; }

void wait_until(const char* what, std::function<bool()> ready) {
  if (ready()) return;
  Fiber& self = *fibers[current];
  self.state = State::at_condition;
  self.what = what;
  self.wanted = std::move(ready);
  wait_for_scheduler();
}

uint32_t shared_address(const void* p) {
  const char *const begin = reinterpret_cast<const char*>(shared.data()), *const at = static_cast<const char*>(p);
  if (at < begin || at > begin + shared.size() * sizeof(uint64_t)) fail("an address outside of dynamic shared memory");
  return kSharedBegin + static_cast<uint32_t>(at - begin);
}

char* at_shared_address(uint32_t address, unsigned bytes) {
  if (address < kSharedBegin || address + bytes > kSharedBegin + shared.size() * sizeof(uint64_t))
    fail("an access outside of dynamic shared memory");
  return reinterpret_cast<char*>(shared.data()) + (address - kSharedBegin);
}

void* dynamic_shared() { return shared.data(); }

void block_barrier() {
  fibers[current]->state = State::at_block_barrier;
  wait_for_scheduler();
}

uint64_t exchange(unsigned mask, uint64_t value, int source) { return warp_barrier(mask, value, source); }

unsigned vote(unsigned mask, bool value) { return static_cast<unsigned>(warp_barrier(mask, value, kVote)); }

const LaneNumbers* hand_in(const LaneNumbers& mine) {
  LaneNumbers* const numbers = lane_numbers[fibers[current]->handed_in++ % 2];
  numbers[current] = mine;
  vote(~0u, true);
  return numbers + current / warpSize * warpSize;
}

const LaneNumbers* hand_in_row(const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) fail("a row of ldmatrix that is not aligned to 16 bytes");
  const LaneNumbers* const all = hand_in({row, {}, {}});
  if (lane() % 8 == 0) check_banks("read", [&](int i) { return all[lane() + i].row; });
  return all;
}

void start_copy(void* to, const void* from, int bytes) {
  const char *const begin = reinterpret_cast<const char*>(shared.data()), *const at = static_cast<const char*>(to);
  if (at < begin || at + 16 > begin + shared.size() * sizeof(uint64_t)) fail("a copy to outside of shared memory");
  if ((at - begin) % 16 || (bytes && reinterpret_cast<uintptr_t>(from) % 16))
    fail("a copy to shared memory that is not aligned to 16 bytes");
  if (bytes < 0 || bytes > 16) fail("a copy to shared memory of " + std::to_string(bytes) + " bytes");
  std::memset(to, 0xff, 16);
  fibers[current]->copies.push_back({to, from, bytes, fibers[current]->groups});
  fibers[current]->copied.push_back(to);
}

void commit_copies() { ++fibers[current]->groups; }

void wait_for_copies(unsigned groups_still_open) {
  Fiber& self = *fibers[current];
  std::vector<Copy> left;
  for (const Copy& copy : self.copies) {
    if (copy.group + groups_still_open >= self.groups) {
      left.push_back(copy);
      continue;
    }
    std::memset(copy.shared, 0, 16);
    if (copy.bytes) std::memcpy(copy.shared, copy.global, copy.bytes);
  }
  self.copies.swap(left);
}

int lane() { return static_cast<int>(current % warpSize); }

cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& kernel_body) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  const dim3 grid = config.gridDim, block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z, blocks = uint64_t{grid.x} * grid.y * grid.z;
  const size_t most_shared = large_shared.count(kernel) ? kMaxSharedBytes : kPlainSharedBytes;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 || blocks == 0 || grid.x > 0x7fffffffu ||
      grid.y > 0xffffu || grid.z > 0xffffu || config.dynamicSmemBytes > most_shared)
    return cudaErrorInvalidConfiguration;
  launches.insert(launches.end(), {blocks, threads, config.dynamicSmemBytes});
  blockDim = block;
  gridDim = grid;
  body = &kernel_body;
  shared.resize((config.dynamicSmemBytes + 15) / 16 * 2);
  make_fibers(threads);
  try {
    for (uint64_t i = 0; i < blocks; ++i) {
      blockIdx = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                  static_cast<unsigned>(i / grid.x / grid.y)};
      run_block();
    }
  } catch (...) {
    failure = nullptr;
    fibers.clear();  // they stand in the middle of a kernel
    throw;
  }
  return cudaSuccess;
}

}  // namespace emulation

// Moves out what has been launched: numbers written to `to`, the last `most` of them, earlier ones forgotten.
extern "C" __attribute__((visibility("default"))) uint64_t emulation_launches(uint64_t* to, uint64_t most) {
  const uint64_t count = std::min<uint64_t>(most, emulation::launches.size());
  std::copy(emulation::launches.end() - count, emulation::launches.end(), to);
  emulation::launches.clear();
  return count;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > emulation::kMaxSharedBytes) return cudaErrorInvalidConfiguration;
  emulation::large_shared.insert(kernel);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const auto set = [](const char* name, int otherwise) {
    const char* const text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
  };
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = set("INPAINT_FAST_EMULATED_MULTIPROCESSORS", 2);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = set("INPAINT_FAST_EMULATED_SHARED_KB", emulation::kMaxSharedBytes >> 10) << 10;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = set("INPAINT_FAST_EMULATED_CAPABILITY", 90) / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = set("INPAINT_FAST_EMULATED_CAPABILITY", 90) % 10;
      break;
  }
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaSuccess ? "no error" : "invalid configuration argument";
}
