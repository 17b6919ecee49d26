// The gradient of a convolution for its weights: one product per output channel, tap and input channel, summed over
// pixels.
#pragma once

#include <vector>

#include "plan.h"

namespace icconv_mm::cpu {

// Output channels that see the same input channels through the same taps.
struct WeightFamily {
  std::vector<Tap> taps;
  std::vector<Output> outputs;  // channel: in the gradient of the output; filter: in the gradient of the weight
  int64_t channel, inside;      // input channels: the first in packed form, how many
  int64_t padded;               // lanes of packed input that they take
  float* result;                // [filter][inside][taps]
};

void weight_gradient(const Kernels& k, std::vector<WeightFamily> families, const Packed& x, const Packed& grad,
                     int64_t stride);

// The same where a vector of input channels holds several groups.
void weight_gradient_of_small_groups(const Kernels& k, const std::vector<WeightFamily>& families, const Packed& x,
                                     const Packed& grad, int64_t stride);

}  // namespace icconv_mm::cpu
