// The pyramidal convolution on CUDA.
#pragma once

#include "../../pyconv/levels.h"

namespace icconv_mm::cuda {

// Forward pass, or with `backward` the gradient of the input, for what `pyconv::refusal` does not refuse.
// An undefined tensor where the surroundings of a tile exceed shared memory, where there are no filters or too many to
// count, and on GPUs older than 8.0.
at::Tensor pyconv_tiled(const pyconv::Geometry& g, const at::Tensor& source, at::TensorList weights,
                        const at::Tensor& bias, bool relu, bool backward);

// The gradient of the weight of each level for what `pyconv::refusal` does not refuse; nothing where `pyconv_tiled`
// returns an undefined tensor.
std::vector<at::Tensor> pyconv_tiled_grad_weight(const pyconv::Geometry& g, const at::Tensor& grad,
                                                 const at::Tensor& x);

}  // namespace icconv_mm::cuda
