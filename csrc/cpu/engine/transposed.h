// The gradient of a strided convolution for its input, as plain convolutions of the output's gradient.
//
// Input pixel y receives from output pixel (y - offset) / stride for every tap whose offset makes that an integer. So
// the pixels of each residue modulo the stride form a class of their own, and every tap belongs to exactly one class.
#pragma once

#include <functional>

#include "engine.h"

namespace icconv_mm::cpu {

struct Residue {
  int64_t stride, y, x;

  // Where the class reads for a tap `offset` away, or false if it does not.
  static bool source(int64_t residue, int64_t offset, int64_t stride, int64_t& delta) {
    if ((residue - offset) % stride != 0) return false;
    delta = (residue - offset) / stride;
    return true;
  }
  // The taps of the class, seen from it.
  std::vector<Tap> taps(const std::vector<Tap>& all) const {
    std::vector<Tap> mine;
    for (const Tap& tap : all) {
      Tap seen{0, 0, tap.number};
      if (source(y, tap.dy, stride, seen.dy) && source(x, tap.dx, stride, seen.dx)) mine.push_back(seen);
    }
    return mine;
  }
};

// Fills `result` [N, C, H, W], float32, class by class; `plan` makes the plan of one, with the level's `filters`.
void transposed(const Kernels& k, const Source& grad, int64_t stride, const std::vector<Filters>& filters,
                const std::function<Plan(const Residue&)>& plan, at::Tensor& result);

}  // namespace icconv_mm::cpu
