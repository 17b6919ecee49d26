// One call of the inception convolution or of a gradient, as the CUDA kernels see it.
#pragma once

#include "../../inception_conv/geometry.h"
#include "../cut.h"

#include <ATen/core/Tensor.h>

namespace icconv_mm::cuda {

using namespace inception_conv;

// Passed to kernels by value. A single image is indexed in 32 bits per axis and pixel, tensors in 64.
using Geometry32 = BasicGeometry<int>;

// How the tensor-core kernels multiply: the type's own unit, TF32, or fp32 as three TF32 products.
enum class Precision { kNative, kTf32, kFp32 };

// A cut without tiles where there is no kernel for the call: sizes that do not fill 16-byte vectors, dilations whose
// halo exceeds shared memory, types and GPUs without the instructions.
Cut forward_tiled_cut(const Geometry32& p, at::ScalarType dtype, Pattern pattern, Precision precision);
Cut grad_input_tiled_cut(const Geometry32& p, at::ScalarType dtype, Pattern pattern, Precision precision);
Cut grad_weight_tiled_cut(const Geometry32& p, at::ScalarType dtype, Pattern pattern, Precision precision);

// By a cut with tiles for this call.
at::Tensor forward_tiled(const Cut& cut, const Geometry32& p, const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& bias, bool relu, Precision precision);
at::Tensor grad_input_tiled(const Cut& cut, const Geometry32& p, const at::Tensor& grad, const at::Tensor& weight,
                            Precision precision);
at::Tensor grad_weight_tiled(const Cut& cut, const Geometry32& p, const at::Tensor& grad, const at::Tensor& x,
                             Precision precision);

// One thread (or block) per element, any type, shape and strides: what serves the rest.
at::Tensor forward_direct(const Geometry32& p, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          Pattern pattern, bool relu);
at::Tensor grad_input_direct(const Geometry32& p, const at::Tensor& grad, const at::Tensor& weight, Pattern pattern);
at::Tensor grad_weight_direct(const Geometry32& p, const at::Tensor& grad, const at::Tensor& x, Pattern pattern);

}  // namespace icconv_mm::cuda
