// The fused CUDA kernels, followed tile by tile on the CPU, for tests.
#pragma once

#include "../inception_conv/geometry.h"

namespace icconv_mm::testing {

using namespace inception_conv;

at::Tensor forward_fused(const Geometry& g, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         Pattern pattern, bool relu, bool wgmma);

// The sums in float32.
at::Tensor multiply_by_warpgroups(const Geometry& g, const at::Tensor& x, const at::Tensor& weight, Pattern pattern);

}  // namespace icconv_mm::testing
