// The operators on the CPU. Their schemas are in ../ops.cpp; they are registered in operators.cpp alone, because
// torch's header for that takes the compiler three seconds.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>
#include <vector>

#include "../common/common.h"

namespace icconv_mm::cpu {

// pattern: runs (out_channels, dilation_h, dilation_w), flattened
at::Tensor inception_conv2d(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                            c10::IntArrayRef pattern, int64_t stride, int64_t groups);
at::Tensor inception_conv2d_relu(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                                 c10::IntArrayRef pattern, int64_t stride, int64_t groups);
at::Tensor inception_conv2d_grad_input(const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size,
                                       c10::IntArrayRef pattern, int64_t stride, int64_t groups);
at::Tensor inception_conv2d_grad_weight(const at::Tensor& grad, const at::Tensor& x, c10::IntArrayRef pattern,
                                        int64_t stride, int64_t groups);

at::Tensor pyconv2d(const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias,
                    c10::IntArrayRef groups, int64_t stride, int64_t dilation);
at::Tensor pyconv2d_relu(const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias,
                         c10::IntArrayRef groups, int64_t stride, int64_t dilation);
at::Tensor pyconv2d_grad_input(const at::Tensor& grad, at::TensorList weights, c10::IntArrayRef size,
                               c10::IntArrayRef groups, int64_t stride, int64_t dilation);
// shapes: three numbers of each level, its output channels and its kernel
std::vector<at::Tensor> pyconv2d_grad_weight(const at::Tensor& grad, const at::Tensor& x, c10::IntArrayRef shapes,
                                             c10::IntArrayRef groups, int64_t stride, int64_t dilation);

at::Tensor packed_conv2d(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                         c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation, int64_t groups,
                         bool relu);
void packed_conv2d_add_relu_(at::Tensor& z, const at::Tensor& x, const at::Tensor& weight,
                             const Optional<at::Tensor>& bias, c10::IntArrayRef stride, c10::IntArrayRef padding,
                             c10::IntArrayRef dilation, int64_t groups);
void batch_norm_relu_(at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean,
                      const at::Tensor& var, double eps, const Optional<at::Tensor>& shortcut, bool relu);

// (levels, mean, 1 / standard deviation), and (gradients of the levels, of the weight, of the bias)
using NormResults = std::tuple<std::vector<at::Tensor>, at::Tensor, at::Tensor>;
NormResults integrated_norm(at::TensorList levels, const Optional<at::Tensor>& weight, const Optional<at::Tensor>& bias,
                            const Optional<at::Tensor>& running_mean, const Optional<at::Tensor>& running_var,
                            const Optional<at::Tensor>& batches, double momentum, double eps, bool relu);
NormResults integrated_norm_grad(at::TensorList grads, at::TensorList levels, const Optional<at::Tensor>& weight,
                                 const Optional<at::Tensor>& bias, const at::Tensor& mean, const at::Tensor& inverse,
                                 bool relu);
at::Tensor deform_conv2d(const at::Tensor& x, const at::Tensor& offset, const Optional<at::Tensor>& mask,
                         const at::Tensor& weight, const Optional<at::Tensor>& bias, c10::IntArrayRef stride,
                         c10::IntArrayRef padding, c10::IntArrayRef dilation, int64_t groups, int64_t deform_groups);
// for x, the offsets, the mask, the weight
using DeformGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
DeformGradients deform_conv2d_grad(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& offset,
                                   const Optional<at::Tensor>& mask, const at::Tensor& weight, c10::IntArrayRef stride,
                                   c10::IntArrayRef padding, c10::IntArrayRef dilation, int64_t groups,
                                   int64_t deform_groups);
at::Tensor pyramid_sum(const at::Tensor& own, const at::Tensor& coarser, const Optional<at::Tensor>& finer);

}  // namespace icconv_mm::cpu
