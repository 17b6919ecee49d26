// The inception convolution and its gradients on CUDA: checks, and the choice between kernels.
#include "../../inception_conv/kn2row/plan.h"
#include "../kernel_request.h"
#include "inception_conv.h"

#include <ATen/Context.h>
#include <ATen/core/LegacyTypeDispatch.h>
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

using Bias = Optional<at::Tensor>;

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
  return tf32_allowed() ? Precision::kTf32 : Precision::kFp32;
}

ShapeClass shape_class(const Geometry& g) {
  return {g.group_in, g.group_out, g.groups, g.stride, g.batch * g.out_height * g.out_width, {}};
}

// Without a kernel by name, in use or in the table: the tiled one where it takes the call, else the plain one.
KernelRequest usual(const char* name, const Geometry& g, const at::Tensor& x) {
  return KernelRequest::usual(name, x.scalar_type(), shape_class(g), "");
}

bool is_kn2row(const KernelRequest& request, const Geometry& g, Pattern pattern, bool hybrid) {
  return (request.is("kn2row") || (hybrid && request.is("hybrid"))) && request.granted(kn2row::refusal(g, pattern));
}

template <typename CutOf>
Choice tiled_or_direct(const KernelRequest& request, const char* name, const CutOf& cut_of) {
  if (request.allows("tiled") && !request.is("direct"))
    if (const Cut cut = cut_of()) return {"tiled", cut};
  TORCH_CHECK(request.allows("direct"), name, ": the kernel '", request.kernel,
              "' is not one of this operator or does not take such a call");
  return {"direct", {}};
}

// The kernel that serves a call with anything to compute.
Choice choose_forward(const KernelRequest& request, const Geometry& g, const at::Tensor& x, Pattern pattern) {
  const Geometry32 p = narrow(g, pattern);
  const at::ScalarType dtype = x.scalar_type();
  if (is_kn2row(request, g, pattern, true)) return {request.kernel, {}};
  if (request.is("fused_wgmma") && request.granted(fused_wgmma_refusal(p, dtype, pattern))) return {request.kernel, {}};
  if (request.is("fused"))
    if (const Cut cut = fused_cut(p, dtype, pattern)) return {request.kernel, cut};
  return tiled_or_direct(request, "inception_conv2d",
                         [&] { return forward_tiled_cut(p, dtype, pattern, precision_of(x)); });
}

Choice choose_grad_input(const KernelRequest& request, const Geometry& g, const at::Tensor& grad, Pattern pattern) {
  if (is_kn2row(request, g, pattern, false)) return {request.kernel, {}};
  return tiled_or_direct(request, "inception_conv2d_grad_input", [&] {
    return grad_input_tiled_cut(narrow(g, pattern), grad.scalar_type(), pattern, precision_of(grad));
  });
}

Choice choose_grad_weight(const KernelRequest& request, const Geometry& g, const at::Tensor& x, Pattern pattern) {
  if (is_kn2row(request, g, pattern, false)) return {request.kernel, {}};
  return tiled_or_direct(request, "inception_conv2d_grad_weight", [&] {
    return grad_weight_tiled_cut(narrow(g, pattern), x.scalar_type(), pattern, precision_of(x));
  });
}

// Whether there is nothing to compute: no kernel runs.
bool is_empty(const Geometry& g) {
  return g.batch == 0 || g.in_channels == 0 || g.out_channels == 0 || g.height == 0 || g.width == 0;
}

at::Tensor forward(const Geometry& g, const KernelRequest& request, const at::Tensor& x, const at::Tensor& weight,
                   const Bias& bias, Pattern pattern, bool relu) {
  const Geometry32 p = narrow(g, pattern);
  const at::Tensor shift = bias ? bias->to(x.scalar_type()).contiguous() : at::Tensor();
  if (p.batch == 0 || p.out_channels == 0 || p.out_height == 0 || p.out_width == 0)
    return at::empty({p.batch, p.out_channels, p.out_height, p.out_width}, x.options(), x.suggest_memory_format());
  const Choice choice = choose_forward(request, g, x, pattern);
  if (choice.is("kn2row") || choice.is("hybrid"))
    return forward_kn2row(g, x, weight, shift, pattern, relu, choice.is("hybrid"));
  if (choice.is("fused_wgmma")) return forward_fused_wgmma(p, x, weight, shift, pattern, relu);
  if (choice.is("fused")) return forward_fused(choice.cut, p, x, weight, shift, pattern, relu);
  if (choice.is("tiled")) return forward_tiled(choice.cut, p, x, weight, shift, relu, precision_of(x));
  return forward_direct(p, x, weight, shift, pattern, relu);
}

at::Tensor grad_input(const Geometry& g, const KernelRequest& request, const at::Tensor& grad, const at::Tensor& weight,
                      Pattern pattern) {
  const Geometry32 p = narrow(g, pattern);
  if (p.batch == 0 || p.in_channels == 0 || p.out_channels == 0 || p.height == 0 || p.width == 0)
    return at::zeros({p.batch, p.in_channels, p.height, p.width}, grad.options());
  const Choice choice = choose_grad_input(request, g, grad, pattern);
  if (choice.is("kn2row")) return grad_input_kn2row(g, grad, weight, pattern);
  if (choice.is("tiled")) return grad_input_tiled(choice.cut, p, grad, weight, precision_of(grad));
  return grad_input_direct(p, grad, weight, pattern);
}

at::Tensor grad_weight(const Geometry& g, const KernelRequest& request, const at::Tensor& grad, const at::Tensor& x,
                       Pattern pattern) {
  const Geometry32 p = narrow(g, pattern);
  if (grad.numel() == 0 || x.numel() == 0) return at::zeros({p.out_channels, p.group_in, 3, 3}, grad.options());
  const Choice choice = choose_grad_weight(request, g, x, pattern);
  if (choice.is("kn2row")) return grad_weight_kn2row(g, grad, x, pattern);
  if (choice.is("tiled")) return grad_weight_tiled(choice.cut, p, grad, x, precision_of(grad));
  return grad_weight_direct(p, grad, x, pattern);
}

template <bool kRelu>
at::Tensor inception_conv2d_cuda(const at::Tensor& x, const at::Tensor& weight, const Bias& bias, Pattern pattern,
                                 int64_t stride, int64_t groups) {
  const Geometry g = check_forward(x, weight, bias, pattern, stride, groups);
  const c10::cuda::CUDAGuard guard(x.device());
  return forward(g, usual("inception_conv2d", g, x), x, weight, bias, pattern, kRelu);
}

std::string inception_conv2d_kernel(const at::Tensor& x, const at::Tensor& weight, const Bias& bias, Pattern pattern,
                                    int64_t stride, int64_t groups) {
  const Geometry g = check_forward(x, weight, bias, pattern, stride, groups);
  const c10::cuda::CUDAGuard guard(x.device());
  return is_empty(g) ? "" : choose_forward(usual("inception_conv2d", g, x), g, x, pattern).kernel;
}

at::Tensor inception_conv2d_by_cuda(c10::string_view kernel, const at::Tensor& x, const at::Tensor& weight,
                                    const Bias& bias, Pattern pattern, int64_t stride, int64_t groups, bool relu) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = check_forward(x, weight, bias, pattern, stride, groups);
  const c10::cuda::CUDAGuard guard(x.device());
  return forward(g, KernelRequest::named(kernel), x, weight, bias, pattern, relu);
}

at::Tensor inception_conv2d_grad_input_cuda(const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size,
                                            Pattern pattern, int64_t stride, int64_t groups) {
  const Geometry g = check_grad_input(grad, weight, size, pattern, stride, groups);
  const c10::cuda::CUDAGuard guard(grad.device());
  return grad_input(g, usual("inception_conv2d_grad_input", g, grad), grad, weight, pattern);
}

std::string inception_conv2d_grad_input_kernel(const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size,
                                               Pattern pattern, int64_t stride, int64_t groups) {
  const Geometry g = check_grad_input(grad, weight, size, pattern, stride, groups);
  const c10::cuda::CUDAGuard guard(grad.device());
  if (is_empty(g)) return "";
  return choose_grad_input(usual("inception_conv2d_grad_input", g, grad), g, grad, pattern).kernel;
}

at::Tensor inception_conv2d_grad_input_by_cuda(c10::string_view kernel, const at::Tensor& grad,
                                               const at::Tensor& weight, c10::IntArrayRef size, Pattern pattern,
                                               int64_t stride, int64_t groups) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = check_grad_input(grad, weight, size, pattern, stride, groups);
  const c10::cuda::CUDAGuard guard(grad.device());
  return grad_input(g, KernelRequest::named(kernel), grad, weight, pattern);
}

at::Tensor inception_conv2d_grad_weight_cuda(const at::Tensor& grad, const at::Tensor& x, Pattern pattern,
                                             int64_t stride, int64_t groups) {
  const Geometry g = check_grad_weight(grad, x, pattern, stride, groups);
  const c10::cuda::CUDAGuard guard(grad.device());
  return grad_weight(g, usual("inception_conv2d_grad_weight", g, grad), grad, x, pattern);
}

std::string inception_conv2d_grad_weight_kernel(const at::Tensor& grad, const at::Tensor& x, Pattern pattern,
                                                int64_t stride, int64_t groups) {
  const Geometry g = check_grad_weight(grad, x, pattern, stride, groups);
  const c10::cuda::CUDAGuard guard(grad.device());
  if (is_empty(g)) return "";
  return choose_grad_weight(usual("inception_conv2d_grad_weight", g, grad), g, x, pattern).kernel;
}

at::Tensor inception_conv2d_grad_weight_by_cuda(c10::string_view kernel, const at::Tensor& grad, const at::Tensor& x,
                                                Pattern pattern, int64_t stride, int64_t groups) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = check_grad_weight(grad, x, pattern, stride, groups);
  const c10::cuda::CUDAGuard guard(grad.device());
  return grad_weight(g, KernelRequest::named(kernel), grad, x, pattern);
}

}  // namespace

bool tf32_allowed() { return allows_tf32(&at::Context::allowTF32CuDNN); }

TORCH_LIBRARY_IMPL(icconv_mm, CUDA, m) {
  m.impl("inception_conv2d_compiled", TORCH_FN(inception_conv2d_cuda<false>));
  m.impl("inception_conv2d_relu_compiled", TORCH_FN(inception_conv2d_cuda<true>));
  m.impl("inception_conv2d_grad_input_compiled", TORCH_FN(inception_conv2d_grad_input_cuda));
  m.impl("inception_conv2d_grad_weight_compiled", TORCH_FN(inception_conv2d_grad_weight_cuda));
  m.impl("inception_conv2d_kernel", TORCH_FN(inception_conv2d_kernel));
  m.impl("inception_conv2d_grad_input_kernel", TORCH_FN(inception_conv2d_grad_input_kernel));
  m.impl("inception_conv2d_grad_weight_kernel", TORCH_FN(inception_conv2d_grad_weight_kernel));
  m.impl("inception_conv2d_by", TORCH_FN(inception_conv2d_by_cuda));
  m.impl("inception_conv2d_grad_input_by", TORCH_FN(inception_conv2d_grad_input_by_cuda));
  m.impl("inception_conv2d_grad_weight_by", TORCH_FN(inception_conv2d_grad_weight_by_cuda));
}

}  // namespace icconv_mm::cuda
