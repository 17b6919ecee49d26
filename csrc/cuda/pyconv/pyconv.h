// The pyramidal convolution on CUDA.
#pragma once

#include "../../pyconv/levels.h"
#include "../cut.h"

namespace icconv_mm::cuda {

// For what `pyconv::refusal` does not refuse: a cut without tiles where the surroundings of a tile exceed shared
// memory, where there are no filters or too many to count, and on GPUs older than 8.0.
Cut pyconv_tiled_cut(const pyconv::Geometry& g, bool backward);
Cut pyconv_tiled_grad_weight_cut(const pyconv::Geometry& g);

// By a cut with tiles for this call: the forward pass, or with `backward` the gradient of the input.
at::Tensor pyconv_tiled(const Cut& cut, const pyconv::Geometry& g, const at::Tensor& source, at::TensorList weights,
                        const at::Tensor& bias, bool relu, bool backward);

// The gradient of the weight of each level.
std::vector<at::Tensor> pyconv_tiled_grad_weight(const Cut& cut, const pyconv::Geometry& g, const at::Tensor& grad,
                                                 const at::Tensor& x);

}  // namespace icconv_mm::cuda
