// What the parts of the emulation need of the block that runs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace emulation {

[[noreturn]] void fail(const std::string& what);
unsigned current_thread();
unsigned thread_count();

// Gives way to other threads until ready(); a block in which nobody can go on is an error that says what for.
void wait_until(const char* what, std::function<bool()> ready);

// Where dynamic shared memory lies in the shared memory of a multiprocessor, which has a part of the system's own
// before it: aligned to 16 bytes and no more, as CUDA promises.
uint32_t shared_address(const void* p);
char* at_shared_address(uint32_t address, unsigned bytes);

// Of barriers, copies of boxes and products of warpgroups (async.cpp): nothing is known of the block before, and
// nothing may be under way at the end.
void begin_async();
void end_async();

}  // namespace emulation
