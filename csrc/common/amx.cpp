#include "common/amx.h"

#include <atomic>
#include <stdexcept>

#include "common/cpu_capability.h"

#if defined(INPAINT_FAST_AMX) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace inpaint_fast {
namespace {

// Intel's manual, volume 1, section 18.2; the system's part is Linux's Documentation/arch/x86/xstate.rst.
bool has_tiles() {
#if defined(INPAINT_FAST_AMX) && defined(__linux__)
  unsigned eax, ebx, ecx, edx;
  constexpr unsigned kSavesState = 1u << 27, kBFloat16 = 1u << 22, kTiles = 1u << 24;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & kSavesState)) return false;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & kBFloat16) == 0 || (edx & kTiles) == 0) return false;
  constexpr int kConfigState = 17, kDataState = 18;
  asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  if (!(eax >> kConfigState & 1) || !(eax >> kDataState & 1)) return false;
  constexpr int kAskForState = 0x1023;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kAskForState, kDataState) == 0;
#else
  return false;
#endif
}

std::atomic<bool> stands_in{false};

}  // namespace

Amx amx() {
  if (stands_in.load(std::memory_order_relaxed)) return Amx::stand_in;
  if (cpu_capability() != CpuCapability::avx512) return Amx::none;
  static const bool tiles = has_tiles();
  return tiles ? Amx::tiles : Amx::none;
}

const char* name_of(Amx amx) {
  switch (amx) {
    case Amx::tiles:
      return "tiles";
    case Amx::stand_in:
      return "stand_in";
    default:
      return "none";
  }
}

void set_amx(const std::string& name) {
  if (!name.empty() && name != name_of(Amx::stand_in))
    throw std::invalid_argument("AMX '" + name + "' is unknown: stand_in is expected, or nothing for what is there");
  stands_in.store(!name.empty());
}

}  // namespace inpaint_fast
