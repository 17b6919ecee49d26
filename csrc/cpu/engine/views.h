// Where a thread finds packed rows of the input: in all of it, packed before, or in a strip that it packs itself.
#pragma once

#include <cstring>

#include "packed.h"

namespace icconv_mm::cpu {

struct View {
  const float* data;  // of pixel (y, x)
  int64_t y, x;
};

struct Whole {
  const Packed& input;

  View rows(int64_t n, int64_t, int64_t, int64_t) const { return {input.origin() + n * input.layout.image, 0, 0}; }
};

// Rows packed just before they are read, so that they are near the thread then. Neighbouring strips both pack what they
// both read.
class Strip {
 public:
  // `memory` has room for what `layout` says.
  Strip(const Kernels& k, const Source& source, const Layout& layout, float* memory)
      : k_(k), source_(source), layout_(layout), memory_(memory) {}

  // Rows [y0, y1) of image n, from column x0 on, as many columns as a row of the layout has.
  View rows(int64_t n, int64_t y0, int64_t y1, int64_t x0) {
    if (n != n_ || x0 != x0_ || y0 < begin_ || y0 > end_) n_ = n, x0_ = x0, begin_ = end_ = y0;
    if ((y1 - begin_) * layout_.row > layout_.block) keep_from(y0);
    if (y1 > end_) {
      pack_piece(k_, source_, {n, end_, y1, x0}, layout_, memory_ + (end_ - begin_) * layout_.row);
      end_ = y1;
    }
    return {memory_ + layout_.border * kBlock, begin_, x0};
  }

 private:
  // Moves the rows that are read again to the front.
  void keep_from(int64_t y) {
    for (int64_t block = 0; block < source_.channels.blocks(); ++block) {
      float* to = memory_ + block * layout_.block;
      std::memmove(to, to + (y - begin_) * layout_.row, (end_ - y) * layout_.row * sizeof(float));
    }
    begin_ = y;
  }

  const Kernels& k_;
  const Source& source_;
  const Layout& layout_;
  float* memory_;
  int64_t n_ = -1, x0_ = 0, begin_ = 0, end_ = 0;  // which rows there are
};

}  // namespace icconv_mm::cpu
