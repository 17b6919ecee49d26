// What torch's dispatcher takes for `Tensor?`: a type of its own before torch 2.5, the standard one since.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/version.h>

#include <optional>

namespace icconv_mm {

#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 5
template <typename T>
using Optional = c10::optional<T>;
#else
template <typename T>
using Optional = std::optional<T>;
#endif

}  // namespace icconv_mm
