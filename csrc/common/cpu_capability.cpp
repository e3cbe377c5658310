#include "common/cpu_capability.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace inpaint_fast {
namespace {

CpuCapability best() {
#ifdef INPAINT_FAST_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return avx512 ? CpuCapability::avx512 : CpuCapability::avx2;
  }
#endif
  return CpuCapability::baseline;
}

CpuCapability named(const std::string& name) {
  for (auto capability : {CpuCapability::baseline, CpuCapability::avx2, CpuCapability::avx512})
    if (name == name_of(capability)) {
      if (capability > best())
        throw std::invalid_argument("CPU capability " + name +
                                    " is not there: this build on this processor has up to " + name_of(best()));
      return capability;
    }
  throw std::invalid_argument("CPU capability '" + name + "' is unknown: baseline, avx2 or avx512 is expected");
}

// Throws inside the first use, that is, while the module is imported: a wrong variable is reported there.
std::atomic<CpuCapability>& in_use() {
  static std::atomic<CpuCapability> value{[] {
    const char* wish = std::getenv("INPAINT_FAST_CPU_CAPABILITY");
    return wish && *wish ? named(wish) : best();
  }()};
  return value;
}

}  // namespace

CpuCapability cpu_capability() { return in_use().load(std::memory_order_relaxed); }

const char* name_of(CpuCapability capability) {
  switch (capability) {
    case CpuCapability::avx512:
      return "avx512";
    case CpuCapability::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

std::vector<std::string> cpu_capabilities() {
  std::vector<std::string> names;
  for (auto capability : {CpuCapability::baseline, CpuCapability::avx2, CpuCapability::avx512})
    if (capability <= best()) names.emplace_back(name_of(capability));
  return names;
}

void set_cpu_capability(const std::string& name) { in_use().store(named(name)); }

}  // namespace inpaint_fast
