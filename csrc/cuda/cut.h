// How a kernel of tiles cuts a call: known before anything runs, and by it whether the kernel takes the call.
#pragma once

#include "patch.h"
#include "tables.h"

#include <cstdint>

namespace icconv_mm::cuda {

struct Cut {
  Patch patch;
  int64_t tiles = 0;  // of pixels, of all images; none where the kernel does not take the call
  const Table* table = nullptr;
  int64_t stage_bytes = 0, bytes = 0;  // shared memory of a stage, and of a block
  int stages = 1;
  int64_t slabs = 0;  // partial sums of the gradient of a weight

  explicit operator bool() const { return tiles > 0; }
};

}  // namespace icconv_mm::cuda
