// One call of the inception convolution or of a gradient, as the CUDA kernels see it.
#pragma once

#include "../../inception_conv.h"

#include <ATen/core/Tensor.h>

#include <climits>
#include <cstdint>
#include <vector>

namespace icconv_mm::cuda {

// Plain sizes, passed to kernels by value. A single image is indexed in 32 bits per axis and pixel, tensors in 64.
struct Problem {
  int batch, in_channels, height, width;
  int out_channels, out_height, out_width;
  int stride, groups, group_in, group_out;
};

using Pattern = c10::IntArrayRef;  // (out_channels, dilation_h, dilation_w) per run, flattened

// The Python layer has named wrong shapes to the user; these checks keep the kernels inside their tensors.
inline Problem make_problem(int64_t batch, int64_t height, int64_t width, c10::IntArrayRef weight_shape,
                            Pattern pattern, int64_t stride, int64_t groups) {
  TORCH_CHECK(stride >= 1 && groups >= 1, "inception_conv2d: stride and groups must be positive");
  TORCH_CHECK(weight_shape.size() == 4 && weight_shape[2] == 3 && weight_shape[3] == 3,
              "inception_conv2d: the weight must be [C_out, C_in / groups, 3, 3], got ", weight_shape);
  TORCH_CHECK(weight_shape[0] % groups == 0, "inception_conv2d: ", weight_shape[0], " filters do not fit ", groups,
              " groups");
  TORCH_CHECK(height >= 0 && width >= 0 && height * width < INT_MAX && batch < INT_MAX && stride < (1 << 15) &&
                  weight_shape[0] < INT_MAX && weight_shape[1] * groups < INT_MAX,
              "inception_conv2d on CUDA takes images of fewer than 2^31 pixels, got ", batch, " of ", height, " x ",
              width);
  int64_t sum = 0;
  TORCH_CHECK(pattern.size() % 3 == 0, "inception_conv2d: the pattern must be triples");
  for (size_t i = 0; i < pattern.size(); i += 3) {
    TORCH_CHECK(pattern[i] >= 0 && pattern[i + 1] >= 1 && pattern[i + 2] >= 1 && pattern[i + 1] < (1 << 24) &&
                    pattern[i + 2] < (1 << 24),
                "inception_conv2d: bad run (", pattern[i], ", ", pattern[i + 1], ", ", pattern[i + 2], ")");
    sum += pattern[i];
  }
  TORCH_CHECK(sum == weight_shape[0], "inception_conv2d: the pattern sums to ", sum, ", the weight has ",
              weight_shape[0], " filters");
  Problem p;
  p.batch = static_cast<int>(batch), p.height = static_cast<int>(height), p.width = static_cast<int>(width);
  p.stride = static_cast<int>(stride), p.groups = static_cast<int>(groups);
  p.out_channels = static_cast<int>(weight_shape[0]), p.group_in = static_cast<int>(weight_shape[1]);
  p.group_out = p.out_channels / p.groups, p.in_channels = p.group_in * p.groups;
  // padding = dilation, so the output size does not depend on the run
  p.out_height = height > 0 ? static_cast<int>((height - 1) / stride + 1) : 0;
  p.out_width = width > 0 ? static_cast<int>((width - 1) / stride + 1) : 0;
  return p;
}

// How the tensor-core kernels multiply: the type's own unit, TF32, or fp32 as three TF32 products.
enum class Precision { kNative, kTf32, kFp32 };

// Each returns an undefined tensor (forward, grad_input) or false where it has no kernel for the call: sizes that do
// not fill 16-byte vectors, dilations whose halo exceeds shared memory, types and cards without the instructions.
at::Tensor forward_tiled(const Problem& p, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         Pattern pattern, bool relu, Precision precision);
at::Tensor grad_input_tiled(const Problem& p, const at::Tensor& grad, const at::Tensor& weight, Pattern pattern,
                            Precision precision);
at::Tensor grad_weight_tiled(const Problem& p, const at::Tensor& grad, const at::Tensor& x, Pattern pattern,
                             Precision precision);

// One thread (or block) per element, any type, shape and strides: what serves the rest.
at::Tensor forward_direct(const Problem& p, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          Pattern pattern, bool relu);
at::Tensor grad_input_direct(const Problem& p, const at::Tensor& grad, const at::Tensor& weight, Pattern pattern);
at::Tensor grad_weight_direct(const Problem& p, const at::Tensor& grad, const at::Tensor& x, Pattern pattern);

}  // namespace icconv_mm::cuda
