// What the CPU and CUDA inception convolutions share: the table of runs and the geometry of one call.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <torch/version.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace icconv_mm {

// What torch's dispatcher takes for `Tensor?`: a type of its own before torch 2.5, the standard one since.
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 5
template <typename T>
using Optional = c10::optional<T>;
#else
template <typename T>
using Optional = std::optional<T>;
#endif

constexpr int64_t kTaps = 9;  // 3x3

// Consecutive output channels [begin, end) that share a dilation and a group.
struct Run {
  int64_t begin, end, dilation_h, dilation_w, group;
};

struct Geometry {
  int64_t batch, in_channels, height, width;
  int64_t out_channels, out_height, out_width;
  int64_t stride, groups, group_in, group_out;
  int64_t max_dilation_h = 1, max_dilation_w = 1;
  std::vector<Run> runs;
};

// Checks shapes again (the Python layer has already named them to the user) and cuts runs at group boundaries.
inline Geometry make_geometry(c10::IntArrayRef x, c10::IntArrayRef weight, c10::IntArrayRef pattern, int64_t stride,
                              int64_t groups) {
  TORCH_CHECK(x.size() == 4 && weight.size() == 4, "inception_conv2d: x and weight must be 4-d, got ", x, " and ",
              weight);
  TORCH_CHECK(stride >= 1 && groups >= 1, "inception_conv2d: stride and groups must be positive");
  Geometry g;
  g.batch = x[0], g.in_channels = x[1], g.height = x[2], g.width = x[3];
  g.out_channels = weight[0], g.stride = stride, g.groups = groups;
  g.group_in = weight[1], g.group_out = g.out_channels / groups;
  TORCH_CHECK(weight[2] == 3 && weight[3] == 3, "inception_conv2d: kernel must be 3x3, got ", weight);
  TORCH_CHECK(g.in_channels == g.group_in * groups && g.out_channels == g.group_out * groups,
              "inception_conv2d: channels of x ", x, " and weight ", weight, " do not match groups ", groups);
  TORCH_CHECK(pattern.size() % 3 == 0, "inception_conv2d: pattern must be triples");
  // padding = dilation, so the output size does not depend on the run
  g.out_height = g.height > 0 ? (g.height - 1) / stride + 1 : 0;
  g.out_width = g.width > 0 ? (g.width - 1) / stride + 1 : 0;
  int64_t begin = 0;
  for (size_t i = 0; i < pattern.size(); i += 3) {
    const int64_t end = begin + pattern[i], dh = pattern[i + 1], dw = pattern[i + 2];
    TORCH_CHECK(pattern[i] >= 0 && dh >= 1 && dw >= 1 && end <= g.out_channels, "inception_conv2d: bad run (",
                pattern[i], ", ", dh, ", ", dw, ")");
    for (int64_t b = begin; b < end;) {
      const int64_t group = b / g.group_out, e = std::min(end, (group + 1) * g.group_out);
      g.runs.push_back({b, e, dh, dw, group});
      b = e;
    }
    if (pattern[i] > 0) {
      g.max_dilation_h = std::max(g.max_dilation_h, dh);
      g.max_dilation_w = std::max(g.max_dilation_w, dw);
    }
    begin = end;
  }
  TORCH_CHECK(begin == g.out_channels, "inception_conv2d: pattern sums to ", begin, ", weight has ", g.out_channels,
              " output channels");
  return g;
}

inline Geometry make_geometry(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                              c10::IntArrayRef pattern, int64_t stride, int64_t groups) {
  const Geometry g = make_geometry(x.sizes(), weight.sizes(), pattern, stride, groups);
  TORCH_CHECK(!bias || bias->numel() == g.out_channels, "inception_conv2d: bias must have ", g.out_channels,
              " elements");
  return g;
}

}  // namespace icconv_mm
