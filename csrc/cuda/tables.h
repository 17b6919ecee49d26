// Tables that tell a kernel what depends on a layer alone: made once per layer and device, then kept.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace icconv_mm::cuda {

struct Table {
  const int* device = nullptr;  // lives as long as the process: captured graphs keep the address
  std::vector<int> host;        // the same numbers
};

enum class TableKind : int64_t { kChannels, kForward, kGradInput, kGradWeight };

// The table for this key, two lists of numbers, on the current device; `build` makes its numbers the first time. Safe
// from several threads, on any stream and while a graph is captured: a new table is uploaded on a stream of its own
// before this returns.
const Table& cached_table(TableKind kind, c10::IntArrayRef parameters, c10::IntArrayRef layer,
                          const std::function<std::vector<int>()>& build);

// Channels innermost and at a 16-byte boundary, as asynchronous copies need them; the tensor itself where it is so.
at::Tensor channels_last(const at::Tensor& tensor);

struct Device {
  int index, major, minor, processors, shared_memory;  // shared memory in bytes that one block may ask for
};
const Device& current_device();

}  // namespace icconv_mm::cuda
