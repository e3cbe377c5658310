// Whether products of matrices may run on Intel's AMX, tiles of bfloat16 numbers with sums in float32.
#pragma once

#include <string>

namespace inpaint_fast {

// stand_in: plain C++ with the results of the instructions, for tests on processors that do not have them.
enum class Amx : int { none, stand_in, tiles };

// tiles: the processor, its system and this build have them, and CPU kernels may use as much as AVX-512. The first
// call asks the system for leave, which is the process's from then on.
Amx amx();
const char* name_of(Amx amx);
// For tests: "stand_in" from now on, or "" for what is there. Throws std::invalid_argument for another name.
void set_amx(const std::string& name);

}  // namespace inpaint_fast
