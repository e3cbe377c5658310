// Walks elements [begin, end) of a Strided as pieces of its innermost dimension.
#pragma once

#include "common/strided.h"

namespace inpaint_fast {
namespace INPAINT_FAST_ISA {

// Calls piece(offsets, first, count): operand k of the piece starts at element offsets[k] + first * inner stride;
// count elements follow, one inner stride apart.
template <class Piece>
static inline void for_each_row(const Strided& walk, int64_t begin, int64_t end, Piece piece) {
  if (begin >= end) return;
  const int inner = walk.dims - 1;
  const int64_t length = walk.sizes[inner];
  int64_t at[kMaxDims] = {}, offsets[kMaxOperands] = {};
  int64_t row = begin / length, first = begin % length;
  for (int d = inner - 1; d >= 0; --d) {
    at[d] = row % walk.sizes[d];
    row /= walk.sizes[d];
    for (int k = 0; k < walk.operands; ++k) offsets[k] += at[d] * walk.strides[k][d];
  }
  for (;;) {
    const int64_t left = end - begin, rest = length - first, count = left < rest ? left : rest;
    piece(static_cast<const int64_t*>(offsets), first, count);
    begin += count;
    if (begin >= end) return;
    first = 0;
    for (int d = inner - 1; d >= 0; --d) {  // the next row, as an odometer turns
      const bool wraps = ++at[d] == walk.sizes[d];
      const int64_t steps = wraps ? 1 - walk.sizes[d] : 1;
      for (int k = 0; k < walk.operands; ++k) offsets[k] += steps * walk.strides[k][d];
      if (!wraps) break;
      at[d] = 0;
    }
  }
}

}  // namespace INPAINT_FAST_ISA
}  // namespace inpaint_fast
