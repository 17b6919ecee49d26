// The packed input: channel-inner, in blocks of kBlock channels, with a zero border left and right.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "../simd/kernels.h"

namespace icconv_mm::cpu {

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Where the channels of a tensor lie in packed form. A group starts at a multiple of `padded`, so that vectors either
// lie within a group or hold whole groups.
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

// Refuses tensors of other types than a Source takes, in the name of an operator.
void check_type(const char* name, const at::Tensor& tensor);

// A tensor to be packed, [N, C, H, W], float32 or bfloat16 of any strides.
struct Source {
  const at::Tensor& x;
  Channels channels;
  int64_t border;

  int64_t batch() const { return x.size(0); }
  int64_t height() const { return x.size(2); }
  int64_t width() const { return x.size(3); }
};

// [N][blocks][H][W + 2 border][kBlock]; strides in floats.
struct Layout {
  int64_t border, row, block, image;

  static Layout of(const Source& source, int64_t height, int64_t width);
};

// All of a tensor.
struct Packed {
  std::shared_ptr<const float> storage;
  Channels channels;
  Layout layout;
  int64_t batch, height, width;

  const float* origin() const { return storage.get() + layout.border * kBlock; }  // of pixel (0, 0)
};
Packed pack(const Kernels& k, const Source& source);

// A rectangle of one image: rows [y0, y1), and from column x0 on as many as a row of the target has, with borders on
// both sides. What lies outside the image becomes zero.
struct Piece {
  int64_t n, y0, y1, x0;
};
void pack_piece(const Kernels& k, const Source& source, const Piece& piece, const Layout& layout, float* target);

// So many floats, some of which are kept for the next call.
std::shared_ptr<float> borrow(int64_t size);

// Frees the memory that is kept for the next call.
void forget_workspace();

}  // namespace icconv_mm::cpu
