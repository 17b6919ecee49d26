// Runs a plan over an input.
#pragma once

#include "plan.h"

namespace icconv_mm::cpu {

// The result, or the pixels of it that one plan computes. Strides are in floats.
struct Target {
  float* data;
  int64_t batch, height, width;
  int64_t n, c, h, w;
  const float* bias;  // [channels] or null
  bool relu;

  // All of a float32 tensor [N, C, H, W]; `bias` is float32 and contiguous, or undefined.
  static Target of(at::Tensor& out, const at::Tensor& bias, bool relu);
  bool is_empty() const { return batch * height * width == 0; }
};

void run(const Kernels& k, const Plan& plan, const float* weight, const Packed& input, int64_t stride,
         const Target& target);
// As above; what of the input is packed when is decided here.
void run(const Kernels& k, const Plan& plan, const float* weight, const Source& input, int64_t stride,
         const Target& target);

}  // namespace icconv_mm::cpu
