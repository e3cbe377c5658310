// Which instruction set the CPU kernels use: the best that this processor has, or the one that was asked for.
#pragma once

#include <string>
#include <vector>

namespace inpaint_fast {

enum class CpuCapability : int { baseline, avx2, avx512 };

// The one in use. INPAINT_FAST_CPU_CAPABILITY=baseline|avx2|avx512 lowers it from outside.
CpuCapability cpu_capability();
const char* name_of(CpuCapability capability);
// Every one that this build has and this processor runs, slowest first.
std::vector<std::string> cpu_capabilities();
// Forces one by name; throws std::invalid_argument when it is unknown, not built or not run by this processor.
void set_cpu_capability(const std::string& name);

}  // namespace inpaint_fast

// Declares one kernel in the namespace of each instruction set; csrc/<stem>/cpu/kernels.cpp defines it in
// INPAINT_FAST_ISA.
#define INPAINT_FAST_DECLARE_CPU_KERNEL(declaration) \
  namespace baseline {                               \
  declaration;                                       \
  }                                                  \
  namespace avx2 {                                   \
  declaration;                                       \
  }                                                  \
  namespace avx512 {                                 \
  declaration;                                       \
  }

// The kernel of that name for the instruction set in use.
#ifdef INPAINT_FAST_X86
#define INPAINT_FAST_CPU_KERNEL(name)                                                       \
  (::inpaint_fast::cpu_capability() == ::inpaint_fast::CpuCapability::avx512 ? avx512::name \
   : ::inpaint_fast::cpu_capability() == ::inpaint_fast::CpuCapability::avx2 ? avx2::name   \
                                                                             : baseline::name)
#else
#define INPAINT_FAST_CPU_KERNEL(name) (baseline::name)
#endif
