// The inception convolution and its gradients on CUDA: checks, and the choice between tiled and direct kernels.
#include "problem.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <optional>
#include <string>

namespace icconv_mm::cuda {
namespace {

using Bias = Optional<at::Tensor>;

void check_pair(const char* name, const at::Tensor& first, const at::Tensor& second) {
  TORCH_CHECK(first.dim() == 4 && second.dim() == 4, name, ": tensors must be 4-d, got ", first.sizes(), " and ",
              second.sizes());
  TORCH_CHECK(first.device() == second.device() && first.scalar_type() == second.scalar_type(), name,
              ": tensors must be alike, got ", first.scalar_type(), " on ", first.device(), " and ",
              second.scalar_type(), " on ", second.device());
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

at::Tensor forward(const at::Tensor& x, const at::Tensor& weight, const Bias& bias, Pattern pattern, int64_t stride,
                   int64_t groups, bool relu) {
  check_pair("inception_conv2d", x, weight);
  const Problem p = make_problem(x.size(0), x.size(2), x.size(3), weight.sizes(), pattern, stride, groups);
  TORCH_CHECK(x.size(1) == p.in_channels, "inception_conv2d: x ", x.sizes(), " and weight ", weight.sizes(),
              " do not fit ", groups, " groups");
  at::Tensor shift;
  if (bias) {
    TORCH_CHECK(bias->dim() == 1 && bias->size(0) == p.out_channels && bias->device() == x.device(),
                "inception_conv2d: the bias must be [", p.out_channels, "] on ", x.device(), ", got ", bias->sizes(),
                " on ", bias->device());
    shift = bias->to(x.scalar_type()).contiguous();
  }
  const c10::cuda::CUDAGuard guard(x.device());
  if (p.batch == 0 || p.out_channels == 0 || p.out_height == 0 || p.out_width == 0)
    return at::empty({p.batch, p.out_channels, p.out_height, p.out_width}, x.options(), x.suggest_memory_format());
  const at::Tensor out = forward_tiled(p, x, weight, shift, pattern, relu, precision_of(x));
  return out.defined() ? out : forward_direct(p, x, weight, shift, pattern, relu);
}

at::Tensor inception_conv2d_cuda(const at::Tensor& x, const at::Tensor& weight, const Bias& bias, Pattern pattern,
                                 int64_t stride, int64_t groups) {
  return forward(x, weight, bias, pattern, stride, groups, false);
}

at::Tensor inception_conv2d_relu_cuda(const at::Tensor& x, const at::Tensor& weight, const Bias& bias, Pattern pattern,
                                      int64_t stride, int64_t groups) {
  return forward(x, weight, bias, pattern, stride, groups, true);
}

void check_grad(const char* name, const at::Tensor& grad, const Problem& p) {
  TORCH_CHECK(grad.size(0) == p.batch && grad.size(1) == p.out_channels && grad.size(2) == p.out_height &&
                  grad.size(3) == p.out_width,
              name, ": the gradient must be [", p.batch, ", ", p.out_channels, ", ", p.out_height, ", ", p.out_width,
              "], got ", grad.sizes());
}

at::Tensor inception_conv2d_grad_input_cuda(const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size,
                                            Pattern pattern, int64_t stride, int64_t groups) {
  check_pair("inception_conv2d_grad_input", grad, weight);
  TORCH_CHECK(size.size() == 2, "inception_conv2d_grad_input: expected a height and a width, got ", size);
  const Problem p = make_problem(grad.size(0), size[0], size[1], weight.sizes(), pattern, stride, groups);
  check_grad("inception_conv2d_grad_input", grad, p);
  const c10::cuda::CUDAGuard guard(grad.device());
  if (p.batch == 0 || p.in_channels == 0 || p.out_channels == 0 || p.height == 0 || p.width == 0)
    return at::zeros({p.batch, p.in_channels, p.height, p.width}, grad.options());
  const at::Tensor out = grad_input_tiled(p, grad, weight, pattern, precision_of(grad));
  return out.defined() ? out : grad_input_direct(p, grad, weight, pattern);
}

at::Tensor inception_conv2d_grad_weight_cuda(const at::Tensor& grad, const at::Tensor& x, Pattern pattern,
                                             int64_t stride, int64_t groups) {
  check_pair("inception_conv2d_grad_weight", grad, x);
  TORCH_CHECK(groups >= 1 && x.size(1) % groups == 0, "inception_conv2d_grad_weight: x ", x.sizes(), " does not fit ",
              groups, " groups");
  const int64_t shape[] = {grad.size(1), x.size(1) / groups, 3, 3};
  const Problem p = make_problem(x.size(0), x.size(2), x.size(3), shape, pattern, stride, groups);
  check_grad("inception_conv2d_grad_weight", grad, p);
  const c10::cuda::CUDAGuard guard(grad.device());
  if (grad.numel() == 0 || x.numel() == 0) return at::zeros(shape, grad.options());
  const at::Tensor out = grad_weight_tiled(p, grad, x, pattern, precision_of(grad));
  return out.defined() ? out : grad_weight_direct(p, grad, x, pattern);
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CUDA, m) {
  m.impl("inception_conv2d_compiled", TORCH_FN(inception_conv2d_cuda));
  m.impl("inception_conv2d_relu_compiled", TORCH_FN(inception_conv2d_relu_cuda));
  m.impl("inception_conv2d_grad_input_compiled", TORCH_FN(inception_conv2d_grad_input_cuda));
  m.impl("inception_conv2d_grad_weight_compiled", TORCH_FN(inception_conv2d_grad_weight_cuda));
}

}  // namespace icconv_mm::cuda
