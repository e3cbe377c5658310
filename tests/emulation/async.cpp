// What goes on beside the threads of a block on sm_90a: barriers with phases, copies of boxes (emulated_tma.h) and
// products of warpgroups (emulated_warpgroup_mma.h).
#include <array>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <vector>

#include "cuda_runtime.h"
#include "emulated_tma.h"
#include "emulated_warpgroup_mma.h"

namespace emulation {
namespace {

constexpr unsigned kGroupThreads = 128, kProductRows = 64, kRunBytes = 32;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// ---- barriers and copies ----

struct BoxCopy {
  uint32_t to;
  CUtensorMap map;
  std::array<int64_t, 5> at;
  unsigned bytes;
};

struct Barrier {
  unsigned arrivals = 0, missing = 0;                // of a phase; of this one
  int64_t announced = 0;                             // bytes of this phase that have not come
  uint64_t phase = 0;                                // how many are complete
  unsigned maker = 0;                                // the thread
  bool mbarrier_fence = false, proxy_fence = false;  // since it was made
  std::vector<BoxCopy> copies;                       // of this phase
};

std::map<const uint64_t*, Barrier> barriers;

Barrier& barrier_at(const uint64_t* place) {
  const auto found = barriers.find(place);
  if (found == barriers.end()) fail("a barrier is used that no mbarrier_init has made");
  return found->second;
}

// The swizzle of 128 bytes, of addresses in shared memory: bits 4 to 6 by bits 7 to 9.
uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

// Calls f(address in shared memory, element of the tensor or null) for each element of the box, in its order.
template <class F>
void each_element(const BoxCopy& copy, F f) {
  const CUtensorMap& map = copy.map;
  const unsigned size = element_bytes_of(map.type), count = copy.bytes / size;
  for (unsigned i = 0; i < count; ++i) {
    const char* from = map.data;
    unsigned rest = i;
    bool inside = true;
    for (unsigned d = 0; d < map.rank; ++d) {
      const int64_t at = copy.at[d] + static_cast<int64_t>(rest % map.box[d]) * map.steps[d];
      rest /= map.box[d];
      inside &= at >= 0 && at < static_cast<int64_t>(map.sizes[d]);
      from += at * static_cast<int64_t>(map.strides[d]);
    }
    const uint32_t to = copy.to + i * size;
    f(map.swizzle == CU_TENSOR_MAP_SWIZZLE_128B ? swizzled(to) : to, inside ? from : nullptr, size);
  }
}

// As the copy engine rounds float32 to TF32: to nearest, ties to even; infinity and NaN stay.
uint32_t nearest_tf32(uint32_t bits) {
  if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
  return (bits + 0xfffu + (bits >> 13 & 1)) & ~0x1fffu;
}

void finish_copy(const BoxCopy& copy) {
  each_element(copy, [&](uint32_t to, const char* from, unsigned size) {
    char* const place = at_shared_address(to, size);
    std::memset(place, 0, size);
    if (!from) return;
    std::memcpy(place, from, size);
    if (copy.map.type != CU_TENSOR_MAP_DATA_TYPE_TFLOAT32) return;
    uint32_t bits;
    std::memcpy(&bits, place, 4);
    bits = nearest_tf32(bits);
    std::memcpy(place, &bits, 4);
  });
}

// Completes the phase if all have arrived and all announced bytes come.
void try_to_complete(Barrier& barrier) {
  if (barrier.missing > 0) return;
  int64_t under_way = 0;
  for (const BoxCopy& copy : barrier.copies) under_way += copy.bytes;
  if (under_way > barrier.announced)
    fail("the copies of a phase bring " + std::to_string(under_way) + " bytes and " +
         std::to_string(barrier.announced) + " were announced");
  if (under_way < barrier.announced) return;
  for (const BoxCopy& copy : barrier.copies) finish_copy(copy);
  barrier.copies.clear();
  barrier.announced = 0;
  barrier.missing = barrier.arrivals;
  ++barrier.phase;
}

struct NamedBarrier {
  int arrived = 0, threads = 0;
  unsigned rounds = 0;
};
NamedBarrier named[16];

// ---- products ----

struct Product {
  uint64_t a, b;
  int columns, k;
  bool mn_major;
  DecodeRow decode;
  unsigned started = 0;  // by so many threads
  bool read = false;
  std::vector<float> rows_a, rows_b;
};

struct Warpgroup {
  std::deque<Product> products;
};
Warpgroup warpgroups[1024 / kGroupThreads];

struct OfThread {
  struct Pending {
    size_t product;
    unsigned group;
    float* sums;
  };
  size_t started = 0;
  unsigned groups = 0;
  bool fenced = false;
  std::vector<Pending> pending;
  std::map<float*, std::vector<float>> sums;  // what they are; the thread's own are NaN meanwhile
};
std::vector<OfThread> of_threads;

// What the bits of a descriptor say (PTX ISA, "Matrix Descriptor Format" of wgmma), in bytes.
struct Descriptor {
  uint32_t begin, leading, stride;
};
Descriptor read_descriptor(uint64_t bits) {
  constexpr uint64_t kNamed =
      0x3fff | uint64_t{0x3fff} << 16 | uint64_t{0x3fff} << 32 | uint64_t{7} << 49 | uint64_t{3} << 62;
  if (bits >> 62 != 1) fail("a descriptor of wgmma whose layout is not the swizzle of 128 bytes");
  if (bits >> 49 & 7) fail("a descriptor of wgmma with a base offset, which tiles at multiples of 1024 lack");
  if (bits & ~kNamed) fail("a descriptor of wgmma with bits that the PTX ISA does not name");
  const auto bytes = [=](int at) { return static_cast<uint32_t>(bits >> at & 0x3fff) << 4; };
  return {bytes(0), bytes(16), bytes(32)};
}

// The numbers of 32 bytes that are neighbours but for the swizzle.
void read_run(float* numbers, uint32_t at, DecodeRow decode) {
  char bytes[kRunBytes];
  for (unsigned chunk = 0; chunk < kRunBytes; chunk += 16)
    std::memcpy(bytes + chunk, at_shared_address(swizzled(at + chunk), 16), 16);
  decode(numbers, bytes);
}

// [rows][k] of a tile that goes along k: rows of 128 bytes, a stride from 8 of them to the next 8.
std::vector<float> read_k_major(const Descriptor& tile, int rows, int k, DecodeRow decode) {
  std::vector<float> numbers(static_cast<size_t>(rows) * k);
  for (int row = 0; row < rows; ++row)
    read_run(&numbers[row * k], tile.begin + row / 8 * tile.stride + row % 8 * 128, decode);
  return numbers;
}

// [rows][k] of a tile of 16-bit numbers that goes along its rows: 128 bytes have 64 of them at one k; the leading
// dimension's stride from 64 rows to the next 64, the other from 8 k to the next 8.
std::vector<float> read_mn_major(const Descriptor& tile, int rows, int k, DecodeRow decode) {
  if (tile.begin % 1024) fail("an MN-major tile that does not begin with an atom of 1024 bytes");
  std::vector<float> numbers(static_cast<size_t>(rows) * k);
  constexpr int kRun = kRunBytes / 2;
  for (int row = 0; row < rows; row += kRun)
    for (int at = 0; at < k; ++at) {
      float run[kRun];
      read_run(run, tile.begin + row / 64 * tile.leading + at / 8 * tile.stride + at % 8 * 128 + row % 64 * 2, decode);
      for (int i = 0; i < kRun; ++i) numbers[(row + i) * k + at] = run[i];
    }
  return numbers;
}

void finish_product(Product& product, std::vector<float>& sums) {
  if (!product.read) {
    const auto read = product.mn_major ? read_mn_major : read_k_major;
    product.rows_a = read(read_descriptor(product.a), kProductRows, product.k, product.decode);
    product.rows_b = read(read_descriptor(product.b), product.columns, product.k, product.decode);
    product.read = true;
  }
  const unsigned thread = current_thread() % kGroupThreads, warp = thread / 32, g = thread % 32 / 4, t = thread % 4;
  for (size_t i = 0; i < sums.size(); ++i) {
    const unsigned row = 16 * warp + g + (i / 2 % 2) * 8, column = i / 4 * 8 + 2 * t + i % 2;
    const float *const a = &product.rows_a[row * product.k], *const b = &product.rows_b[column * product.k];
    float sum = sums[i];
    for (int j = 0; j < product.k; ++j) sum += a[j] * b[j];
    sums[i] = sum;
  }
}

}  // namespace

void begin_async() {
  barriers.clear();
  for (NamedBarrier& barrier : named) barrier = {};
  for (Warpgroup& group : warpgroups) group.products.clear();
  of_threads.assign(thread_count(), {});
}

void end_async() {
  for (const auto& each : barriers)
    if (!each.second.copies.empty()) fail("it has ended with a copy of a box under way");
  for (const OfThread& thread : of_threads)
    if (!thread.pending.empty()) fail("it has ended with products of a warpgroup under way");
}

void make_barrier(uint64_t* place, unsigned arrivals) {
  if (shared_address(place) % 8) fail("a barrier that is not aligned to 8 bytes");
  if (arrivals == 0 || arrivals >= 1u << 20) fail("a barrier of " + std::to_string(arrivals) + " arrivals");
  Barrier barrier;
  barrier.arrivals = barrier.missing = arrivals;
  barrier.maker = current_thread();
  barriers[place] = barrier;
}

void show_barriers(bool by_mbarrier_fence) {
  for (auto& each : barriers)
    if (each.second.maker == current_thread())
      (by_mbarrier_fence ? each.second.mbarrier_fence : each.second.proxy_fence) = true;
}

void arrive(uint64_t* place, unsigned bytes) {
  Barrier& barrier = barrier_at(place);
  if (barrier.missing == 0) fail("a thread arrives at a barrier whose phase lacks no arrival");
  barrier.announced += bytes;
  if (barrier.announced >= 1 << 20) fail("more bytes are announced than a barrier counts");
  --barrier.missing;
  // With copies, a phase is complete no sooner than a thread waits for it.
  if (barrier.announced == 0 && barrier.copies.empty()) try_to_complete(barrier);
}

bool wait_for_phase(uint64_t* place, unsigned parity) {
  if (parity > 1) fail("a parity other than 0 and 1");
  Barrier& barrier = barrier_at(place);
  wait_until("the phase of an mbarrier", [&barrier, parity] {
    if ((barrier.phase & 1) == parity) try_to_complete(barrier);
    return (barrier.phase & 1) != parity;
  });
  return true;
}

void copy_box(void* to, const CUtensorMap& map, uint64_t* place, std::initializer_list<int> at) {
  Barrier& barrier = barrier_at(place);
  if (!barrier.mbarrier_fence || !barrier.proxy_fence)
    fail("a barrier that the copy engine has not been told of by its maker's fences");
  if (at.size() != map.rank) fail("a copy of a box by coordinates of another rank");
  BoxCopy copy;
  copy.to = shared_address(to);
  copy.map = map;
  std::copy(at.begin(), at.end(), copy.at.begin());
  copy.bytes = element_bytes_of(map.type);
  for (unsigned d = 0; d < map.rank; ++d) copy.bytes *= map.box[d];
  if (copy.to % 128) fail("a copy of a box to a place that is not aligned to 128 bytes");
  each_element(copy, [](uint32_t address, const char*, unsigned size) {
    std::memset(at_shared_address(address, size), 0xff, size);
  });
  barrier.copies.push_back(copy);
}

void named_barrier(int id, int threads) {
  if (id < 0 || id > 15 || threads < 1 || threads % 32)
    fail("a barrier of no whole warps, or of no number from 0 to 15");
  NamedBarrier& barrier = named[id];
  if (barrier.arrived > 0 && barrier.threads != threads) fail("threads at one barrier that expect different numbers");
  barrier.threads = threads;
  const unsigned round = barrier.rounds;
  if (++barrier.arrived == threads) barrier.arrived = 0, ++barrier.rounds;
  wait_until("bar.sync", [&barrier, round] { return barrier.rounds != round; });
}

void start_product(float* sums, int columns, uint64_t a, uint64_t b, int k, bool mn_major, DecodeRow decode) {
  const unsigned group = current_thread() / kGroupThreads;
  if ((group + 1) * kGroupThreads > thread_count()) fail("a product of threads that are no whole warpgroup");
  OfThread& self = of_threads[current_thread()];
  if (!self.fenced) fail("a product without a wgmma_fence before it");
  std::deque<Product>& products = warpgroups[group].products;
  if (self.started == products.size()) products.push_back({a, b, columns, k, mn_major, decode, 0, false, {}, {}});
  Product& product = products[self.started];
  if (product.a != a || product.b != b || product.columns != columns || product.mn_major != mn_major ||
      product.decode != decode)
    fail("the threads of a warpgroup start different products");
  ++product.started;
  const auto found = self.sums.find(sums);
  if (found == self.sums.end()) {
    self.sums[sums].assign(sums, sums + columns / 2);
    std::fill_n(sums, columns / 2, kNaN);
  } else if (!std::all_of(sums, sums + columns / 2, [](float x) { return std::isnan(x); })) {
    fail("sums that were written with products of theirs under way");
  }
  self.pending.push_back({self.started++, self.groups, sums});
}

void fence_products() { of_threads[current_thread()].fenced = true; }

void commit_products() { ++of_threads[current_thread()].groups; }

void wait_for_products(unsigned groups_still_open) {
  OfThread& self = of_threads[current_thread()];
  std::deque<Product>& products = warpgroups[current_thread() / kGroupThreads].products;
  std::vector<OfThread::Pending> left;
  for (const OfThread::Pending& each : self.pending) {
    if (each.group + groups_still_open >= self.groups) {
      left.push_back(each);
      continue;
    }
    Product& product = products[each.product];
    wait_until("a product that others of the warpgroup have not started",
               [&product] { return product.started == kGroupThreads; });
    finish_product(product, self.sums[each.sums]);
  }
  self.pending.swap(left);
  for (auto each = self.sums.begin(); each != self.sums.end();) {
    const auto uses = [&](const OfThread::Pending& pending) { return pending.sums == each->first; };
    if (std::any_of(self.pending.begin(), self.pending.end(), uses)) {
      ++each;
      continue;
    }
    std::copy(each->second.begin(), each->second.end(), each->first);
    each = self.sums.erase(each);
  }
  self.fenced = false;
}

}  // namespace emulation

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                                const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* steps, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  const unsigned size = element_bytes_of(type);
  const auto wrong = CUDA_ERROR_INVALID_VALUE;
  if (reinterpret_cast<uintptr_t>(map) % 64 || reinterpret_cast<uintptr_t>(data) % 16 || rank < 3 || rank > 5)
    return wrong;
  if (box[0] * size % 16 || (swizzle == CU_TENSOR_MAP_SWIZZLE_128B && box[0] * size > 128)) return wrong;
  map->type = type, map->swizzle = swizzle, map->rank = rank;
  map->data = static_cast<const char*>(data);
  for (unsigned d = 0; d < rank; ++d) {
    if (sizes[d] == 0 || sizes[d] > uint64_t{1} << 32 || box[d] == 0 || box[d] > 256) return wrong;
    if (steps[d] == 0 || steps[d] > 8) return wrong;
    map->sizes[d] = sizes[d], map->steps[d] = d == 0 ? 1 : steps[d];  // the innermost's is not looked at
    map->box[d] = (box[d] + map->steps[d] - 1) / map->steps[d];
    map->strides[d] = d == 0 ? size : strides[d - 1];
    if (d > 0 && (map->strides[d] % 16 || map->strides[d] >= uint64_t{1} << 40 ||
                  map->strides[d] < map->strides[d - 1] * sizes[d - 1]))
      return wrong;
  }
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  *function = known ? reinterpret_cast<void*>(cuTensorMapEncodeTiled) : nullptr;
  *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
