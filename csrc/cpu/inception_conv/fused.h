// The fused CUDA kernel, followed tile by tile on the CPU, for tests.
#pragma once

#include "../../inception_conv/geometry.h"

namespace icconv_mm {

at::Tensor forward_fused(const Geometry& g, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         Pattern pattern, bool relu);

}  // namespace icconv_mm
