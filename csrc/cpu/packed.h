// The packed input: channel-inner, in blocks of kBlock channels, with a zero border left and right.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "kernels.h"

namespace icconv_mm {

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Where the channels of a tensor lie in packed form. A group starts at a multiple of `padded`, so that vectors either lie
// within a group or hold whole groups.
//
// With `pairs` everything here and in a plan counts pairs of bfloat16 channels instead of channels: two neighbours of a
// group take the place of one float, and the tiles of pair_kernels() multiply both at once.
struct Channels {
  int64_t groups, inside, padded;
  bool pairs = false;

  static Channels of(int64_t groups, int64_t inside, bool pairs = false) {
    if (pairs) inside /= 2;
    int64_t padded = 1;
    while (padded < inside && padded < kMaxLanes) padded *= 2;
    return {groups, inside, inside > kMaxLanes ? round_up(inside, kMaxLanes) : padded, pairs};
  }
  int64_t blocks() const { return (groups * padded + kBlock - 1) / kBlock; }
  bool plain() const { return inside == padded || groups == 1; }  // a channel keeps its number
};

// [N][blocks][H][W + 2 border][kBlock]; strides in floats.
struct Packed {
  std::shared_ptr<const float> storage;
  Channels channels;
  int64_t batch, height, width, border, row, block, image;

  int64_t size() const { return batch * image; }
  const float* origin() const { return storage.get() + border * kBlock; }  // of pixel (0, 0)
};

// Copies x [N, C, H, W], float32 or bfloat16 of any strides.
Packed pack(const Kernels& k, const at::Tensor& x, const Channels& channels, int64_t border);

// Frees the memory that is kept for the next call.
void forget_scratch();

}  // namespace icconv_mm
