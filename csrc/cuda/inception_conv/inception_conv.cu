// The inception convolution and its gradients on CUDA: checks, and which kernel runs.
#include "inception_conv.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <climits>
#include <initializer_list>
#include <optional>
#include <string>

namespace icconv_mm::cuda {
namespace {

// The sizes in 32 bits; refuses what the kernels cannot index.
Geometry32 narrow(const Geometry& g, Pattern pattern) {
  const int64_t dilation = std::max(max_dilation(pattern, 0), max_dilation(pattern, 1));
  TORCH_CHECK(dilation < (1 << 24) && g.stride < (1 << 15),
              "inception_conv2d on CUDA takes dilations below 2^24 and strides below 2^15, got ", dilation, " and ",
              g.stride);
  const auto fit = [](std::initializer_list<int64_t> sizes) { return std::max(sizes) < INT_MAX; };
  TORCH_CHECK(fit({g.batch, g.in_channels, g.out_channels, g.groups, g.height, g.width}) && fit({g.height * g.width}),
              "inception_conv2d on CUDA takes fewer than 2^31 images, channels, and pixels of an image, got ", g.batch,
              " of ", g.in_channels, " x ", g.height, " x ", g.width, " and ", g.out_channels, " filters");
  const auto narrowed = [](int64_t size) { return static_cast<int>(size); };
  return {narrowed(g.batch),        narrowed(g.in_channels), narrowed(g.height),    narrowed(g.width),
          narrowed(g.out_channels), narrowed(g.out_height),  narrowed(g.out_width), narrowed(g.stride),
          narrowed(g.groups),       narrowed(g.group_in),    narrowed(g.group_out)};
}

// What torch lets its own convolutions do to fp32. Since 2.9 they have a setting of their own, and asking for that of
// all of cuDNN is an error where they differ; it is named by a string in 2.9 and by an enumerator since 2.10.
[[maybe_unused]] bool allows_tf32(bool (at::Context::*get)() const) { return (at::globalContext().*get)(); }

[[maybe_unused]] bool allows_tf32(bool (at::Context::*get)(const std::string&) const) {
  return (at::globalContext().*get)("conv");
}

template <typename Operator>
bool allows_tf32(bool (at::Context::*get)(std::optional<Operator>) const) {
  return (at::globalContext().*get)(Operator::CONV);
}

Precision precision_of(const at::Tensor& tensor) {
  if (tensor.scalar_type() != at::kFloat) return Precision::kNative;
  return allows_tf32(&at::Context::allowTF32CuDNN) ? Precision::kTf32 : Precision::kFp32;
}

// Two kernels serve all calls. The tiled one multiplies on tensor cores and was the faster one wherever it takes a
// call, which is where there is a cut; the direct one takes the rest: float64, channels that do not fill 16 bytes,
// dilations whose border exceeds shared memory, GPUs before compute capability 8.0.

at::Tensor forward(const Geometry32& p, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   Pattern pattern, bool relu) {
  const Precision precision = precision_of(x);
  if (const Cut cut = forward_tiled_cut(p, x.scalar_type(), pattern, precision))
    return forward_tiled(cut, p, x, weight, bias, relu, precision);
  return forward_direct(p, x, weight, bias, pattern, relu);
}

at::Tensor grad_input(const Geometry32& p, const at::Tensor& grad, const at::Tensor& weight, Pattern pattern) {
  const Precision precision = precision_of(grad);
  if (const Cut cut = grad_input_tiled_cut(p, grad.scalar_type(), pattern, precision))
    return grad_input_tiled(cut, p, grad, weight, precision);
  return grad_input_direct(p, grad, weight, pattern);
}

at::Tensor grad_weight(const Geometry32& p, const at::Tensor& grad, const at::Tensor& x, Pattern pattern) {
  const Precision precision = precision_of(x);
  if (const Cut cut = grad_weight_tiled_cut(p, x.scalar_type(), pattern, precision))
    return grad_weight_tiled(cut, p, grad, x, precision);
  return grad_weight_direct(p, grad, x, pattern);
}

template <bool kRelu>
at::Tensor inception_conv2d(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                            Pattern pattern, int64_t stride, int64_t groups) {
  const Geometry32 p = narrow(check_forward(x, weight, bias, pattern, stride, groups), pattern);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor shift = bias ? bias->to(x.scalar_type()).contiguous() : at::Tensor();
  if (p.batch == 0 || p.out_channels == 0 || p.out_height == 0 || p.out_width == 0)
    return at::empty({p.batch, p.out_channels, p.out_height, p.out_width}, x.options(), x.suggest_memory_format());
  return forward(p, x, weight, shift, pattern, kRelu);
}

at::Tensor inception_conv2d_grad_input(const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size,
                                       Pattern pattern, int64_t stride, int64_t groups) {
  const Geometry32 p = narrow(check_grad_input(grad, weight, size, pattern, stride, groups), pattern);
  const c10::cuda::CUDAGuard guard(grad.device());
  if (p.batch == 0 || p.in_channels == 0 || p.out_channels == 0 || p.height == 0 || p.width == 0)
    return at::zeros({p.batch, p.in_channels, p.height, p.width}, grad.options());
  return grad_input(p, grad, weight, pattern);
}

at::Tensor inception_conv2d_grad_weight(const at::Tensor& grad, const at::Tensor& x, Pattern pattern, int64_t stride,
                                        int64_t groups) {
  const Geometry32 p = narrow(check_grad_weight(grad, x, pattern, stride, groups), pattern);
  const c10::cuda::CUDAGuard guard(grad.device());
  if (grad.numel() == 0 || x.numel() == 0) return at::zeros({p.out_channels, p.group_in, 3, 3}, grad.options());
  return grad_weight(p, grad, x, pattern);
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CUDA, m) {
  m.impl("inception_conv2d_compiled", TORCH_FN(inception_conv2d<false>));
  m.impl("inception_conv2d_relu_compiled", TORCH_FN(inception_conv2d<true>));
  m.impl("inception_conv2d_grad_input_compiled", TORCH_FN(inception_conv2d_grad_input));
  m.impl("inception_conv2d_grad_weight_compiled", TORCH_FN(inception_conv2d_grad_weight));
}

}  // namespace icconv_mm::cuda
