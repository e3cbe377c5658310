// How elementwise operators walk tensors of one shape and any strides, broadcast ones (stride 0) included.
//
// A Strided holds that shape with as few dimensions as the strides allow: dimensions of size 1 are dropped, the rest
// ordered by the first operand's memory, and neighbours merged where every operand lies evenly across both. A
// contiguous NCHW or channels_last tensor becomes one dimension; nothing is ever copied to make it so.
// Plain data without torch or CUDA headers: CPU and CUDA code and the tests' emulation share it.
#pragma once

#include "common/integers.h"

namespace inpaint_fast {

constexpr int kMaxDims = 5;
constexpr int kMaxOperands = 5;

struct Strided {
  int dims = 0;  // at least 1 after collapse()
  int operands = 0;
  int64_t numel = 1;
  int64_t sizes[kMaxDims] = {};                  // outermost first, in elements
  int64_t strides[kMaxOperands][kMaxDims] = {};  // in elements; 0 where an operand repeats

  // Adds one dimension, outermost first, before collapse().
  void add_dim(int64_t size) {
    sizes[dims++] = size;
    numel = saturating_product(numel, size);
  }

  void collapse() {
    if (numel == 0) dims = 0;  // of sizes whose products may be no numbers
    drop_ones();
    sort_by_memory();
    merge();
    if (dims == 0) {
      dims = 1;
      sizes[0] = numel;
      for (int k = 0; k < operands; ++k) strides[k][0] = 1;
    }
  }

 private:
  void move_dim(int from, int to) {
    sizes[to] = sizes[from];
    for (int k = 0; k < operands; ++k) strides[k][to] = strides[k][from];
  }

  void drop_ones() {
    int kept = 0;
    for (int d = 0; d < dims; ++d)
      if (sizes[d] != 1) move_dim(d, kept++);
    dims = kept;
  }

  // True when dimension a should lie inside (after) dimension b: the first operand that tells them apart decides.
  bool inside(int a, int b) const {
    for (int k = 0; k < operands; ++k) {
      const int64_t sa = strides[k][a] < 0 ? -strides[k][a] : strides[k][a];
      const int64_t sb = strides[k][b] < 0 ? -strides[k][b] : strides[k][b];
      if (sa != sb && sa != 0 && sb != 0) return sa < sb;
    }
    return false;
  }

  void sort_by_memory() {
    for (int i = 1; i < dims; ++i)
      for (int j = i; j > 0 && inside(j - 1, j); --j) {
        Strided swapped = *this;
        move_dim(j, j - 1);
        sizes[j] = swapped.sizes[j - 1];
        for (int k = 0; k < operands; ++k) strides[k][j] = swapped.strides[k][j - 1];
      }
  }

  bool merges(int outer, int inner) const {
    for (int k = 0; k < operands; ++k)
      if (strides[k][outer] != strides[k][inner] * sizes[inner]) return false;
    return true;
  }

  void merge() {
    int last = 0;
    for (int d = 1; d < dims; ++d) {
      if (merges(last, d)) {
        const int64_t size = sizes[last] * sizes[d];
        move_dim(d, last);
        sizes[last] = size;
      } else {
        move_dim(d, ++last);
      }
    }
    if (dims > 0) dims = last + 1;
  }
};

}  // namespace inpaint_fast
