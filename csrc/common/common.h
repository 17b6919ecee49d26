// What every operator is compiled with, on every device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/version.h>

#include <cstdint>
#include <limits>
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

// The channels of so many groups, -1 where the number of groups is not positive. Numbers of groups come from callers:
// nothing is multiplied by them unchecked.
inline int64_t channels_of(int64_t groups, int64_t inside) {
  if (groups < 1) return -1;
  TORCH_CHECK(inside <= std::numeric_limits<int64_t>::max() / groups, groups, " groups of ", inside,
              " channels are more than a number holds");
  return groups * inside;
}

}  // namespace icconv_mm
