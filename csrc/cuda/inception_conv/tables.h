// Tables that tell a kernel which output channels have which dilation: made once per pattern and device, then kept.
#pragma once

#include "problem.h"

#include <functional>
#include <vector>

namespace icconv_mm::cuda {

struct Table {
  const int* device = nullptr;  // lives as long as the process: captured graphs keep the address
  std::vector<int> host;        // the same numbers
};

enum class TableKind : int64_t { kChannels, kForward, kGradInput, kGradWeight, kKn2row, kFused, kPyramid };

// The table for this key on the current device; `build` makes its numbers the first time. Safe from several threads,
// on any stream and while a graph is captured: a new table is uploaded on a stream of its own before this returns.
const Table& cached_table(TableKind kind, c10::IntArrayRef parameters, Pattern pattern,
                          const std::function<std::vector<int>()>& build);

// Output channels of one group that share a dilation, wherever their runs are; in the order of first appearance.
struct Share {
  int group, dilation_h, dilation_w;
  std::vector<int> channels;  // ascending
};
std::vector<Share> make_shares(const Problem& p, Pattern pattern);

// [C_out][3] = (dilation_h, dilation_w, group)
const Table& channel_table(const Problem& p, Pattern pattern);

// Channels innermost and at a 16-byte boundary, as asynchronous copies need them; the tensor itself where it is so.
at::Tensor channels_last(const at::Tensor& tensor);

struct Device {
  int index, major, minor, processors, shared_memory;  // shared memory in bytes that one block may ask for
};
const Device& current_device();

}  // namespace icconv_mm::cuda
