// Where the time of a kernel goes: how long its stages take, on all threads together. The clock stands still until
// benchmarks/parts.py starts it; then a kernel says when a stage of a task, or of a block of its channels, has ended.
// No inline function: kernels include it (common/vec.h).
#pragma once

#include <stdint.h>

namespace inpaint_fast {

// Of a convolution by Winograd's algorithm, and of the gradient of its weights.
enum class Stage : int { gather, product, inverse, gradient_gather, gradient_product, gradient_inverse };
constexpr const char* kStageNames[] = {"gather",          "product",          "inverse",
                                       "gradient_gather", "gradient_product", "gradient_inverse"};
constexpr int kStages = sizeof kStageNames / sizeof *kStageNames;

void run_stage_clock(bool run);

// When a stage begins: nanoseconds, or 0 where the clock stands still.
int64_t stage_begins();
// Adds the time since it began, and returns when the next one does. Nothing where the clock stood still then.
int64_t stage_ends(Stage stage, int64_t began);

// Of all threads, since the process began; `times`: how often the stage has ended.
struct StageTime {
  int64_t nanoseconds, times;
};
StageTime time_of(Stage stage);

}  // namespace inpaint_fast
