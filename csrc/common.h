// What every operator is compiled with, on every device.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/version.h>

#include <cstdint>
#include <optional>

namespace icconv_mm {

constexpr int64_t kTaps = 9;                    // 3x3
constexpr int64_t kMaxStep = int64_t{1} << 40;  // of strides and dilations: beyond any map, and products are exact

// What torch's dispatcher takes for `Tensor?`: a type of its own before torch 2.5, the standard one since.
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 5
template <typename T>
using Optional = c10::optional<T>;
#else
template <typename T>
using Optional = std::optional<T>;
#endif

}  // namespace icconv_mm
