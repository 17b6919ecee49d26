// The pyramidal convolution on CUDA.
#pragma once

#include "../../pyconv/levels.h"

namespace icconv_mm::cuda {

// Forward pass, or with `backward` the gradient of the input at stride 1, for what `pyconv::refusal` does not refuse.
// An undefined tensor where the surroundings of a tile exceed shared memory or the card is older than 8.0.
at::Tensor pyconv_tiled(const pyconv::Call& call, const at::Tensor& source, at::TensorList weights,
                        const at::Tensor& bias, bool relu, bool backward);

}  // namespace icconv_mm::cuda
