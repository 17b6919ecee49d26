// What the inception convolutions of all devices share: the checks and the geometry of one call, the table of runs.
#pragma once

#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <vector>

#include "../common/common.h"

namespace icconv_mm::inception_conv {

using Pattern = c10::IntArrayRef;  // (out_channels, dilation_h, dilation_w) per run, flattened

// The sizes and steps of one call.
template <typename Int>
struct BasicGeometry {
  Int batch, in_channels, height, width;
  Int out_channels, out_height, out_width;
  Int stride, groups, group_in, group_out;
};
using Geometry = BasicGeometry<int64_t>;

// The checks of one call. The Python layer has named wrong shapes to the user already; these keep the kernels inside
// their tensors. What a device has no kernel for (types, sizes) it refuses itself.
Geometry check_forward(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias, Pattern pattern,
                       int64_t stride, int64_t groups);
Geometry check_grad_input(const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size, Pattern pattern,
                          int64_t stride, int64_t groups);
Geometry check_grad_weight(const at::Tensor& grad, const at::Tensor& x, Pattern pattern, int64_t stride,
                           int64_t groups);

// Consecutive output channels [begin, end) that share a dilation and a group.
struct Run {
  int64_t begin, end, dilation_h, dilation_w, group;
};

// The runs of a checked pattern that are not empty, cut where a group of `group_out` output channels ends.
std::vector<Run> cut_runs(Pattern pattern, int64_t group_out);

// The largest dilation of runs that are not empty. axis 0: height, 1: width.
int64_t max_dilation(Pattern pattern, int axis);

}  // namespace icconv_mm::inception_conv
