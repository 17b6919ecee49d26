// The pyramidal convolution and its gradients on CUDA: the choice between kernels. Those of filled filters serve every
// call, so they take what the tiled one leaves.
#include "pyconv.h"

#include "../kernel_request.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <climits>

namespace icconv_mm::cuda {
namespace {

using Bias = Optional<at::Tensor>;
using pyconv::Geometry;

constexpr char kByDefault[] = "tiled", kForTheRest[] = "merged";

KernelRequest usual(const char* name, const Geometry& g, const at::Tensor& x, const char* by_default = kByDefault) {
  return KernelRequest::usual(name, x.scalar_type(), shape_class(g), by_default);
}

std::string filled(const KernelRequest& request) {
  return pyconv::is_filled(request.kernel) ? request.kernel : kForTheRest;
}

bool fits(const Geometry& g) {
  const int64_t most = std::max({g.batch, g.in_channels, g.out_channels, g.height * g.width, g.stride, g.dilation});
  return most < INT_MAX;
}

// Whether the tiled kernel is asked for and can, as far as the call says; an error where it must and cannot.
bool is_tiled(const KernelRequest& request, const Geometry& g, at::ScalarType dtype, bool backward) {
  TORCH_CHECK(request.allows("tiled") || pyconv::is_filled(request.kernel), "pyconv2d has no kernel '", request.kernel,
              "'");
  return request.is("tiled") && request.granted(pyconv::refusal(g, dtype, backward)) && fits(g);
}

void check_taken(const KernelRequest& request, bool taken) {
  TORCH_CHECK(taken || !request.by_name || !request.is("tiled"),
              "the tiled kernel of pyconv2d does not take such a call on this GPU");
}

// The tiled kernel where it is asked for and can, else an undefined tensor; an error where it must and cannot.
at::Tensor try_tiled(const KernelRequest& request, const Geometry& g, const at::Tensor& source, at::TensorList weights,
                     const at::Tensor& bias, bool relu, bool backward) {
  at::Tensor out;
  if (is_tiled(request, g, source.scalar_type(), backward))
    out = pyconv_tiled(g, source, weights, bias, relu, backward);
  check_taken(request, out.defined());
  return out;
}

at::Tensor forward(const KernelRequest& request, const Geometry& g, const at::Tensor& x, at::TensorList weights,
                   const Bias& bias, bool relu) {
  if (g.batch * g.out_channels * g.out_height * g.out_width == 0)
    return at::empty({g.batch, g.out_channels, g.out_height, g.out_width}, x.options(), x.suggest_memory_format());
  const at::Tensor shift = bias ? bias->to(x.scalar_type()).contiguous() : at::Tensor();
  const at::Tensor out = try_tiled(request, g, x, weights, shift, relu, false);
  if (out.defined()) return out;
  return pyconv::forward_filled(filled(request), g, x, weights, shift, relu);
}

at::Tensor grad_input(const KernelRequest& request, const Geometry& g, const at::Tensor& grad, at::TensorList weights) {
  if (grad.numel() == 0) return at::zeros({g.batch, g.in_channels, g.height, g.width}, grad.options());
  const at::Tensor out = try_tiled(request, g, grad, weights, {}, false, true);
  if (out.defined()) return out;
  return pyconv::grad_input_filled(filled(request), g, grad, weights);
}

std::vector<at::Tensor> grad_weight(const KernelRequest& request, const Geometry& g, const at::Tensor& grad,
                                    const at::Tensor& x) {
  if (grad.numel() > 0 && x.numel() > 0) {
    std::vector<at::Tensor> out;
    if (is_tiled(request, g, x.scalar_type(), false)) out = pyconv_tiled_grad_weight(g, grad, x);
    check_taken(request, !out.empty());
    if (!out.empty()) return out;
    return pyconv::grad_weight_filled(filled(request), g, grad, x);
  }
  std::vector<at::Tensor> nothing;
  for (const pyconv::Level& level : g.levels)
    nothing.push_back(
        at::zeros({level.outputs, g.in_channels / level.groups, level.height, level.width}, grad.options()));
  return nothing;
}

template <bool kRelu>
at::Tensor pyconv2d(const at::Tensor& x, at::TensorList weights, const Bias& bias, c10::IntArrayRef groups,
                    int64_t stride, int64_t dilation) {
  const Geometry g = pyconv::check_forward(x, weights, bias, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(x.device());
  return forward(usual("pyconv2d", g, x), g, x, weights, bias, kRelu);
}

at::Tensor pyconv2d_by(c10::string_view kernel, const at::Tensor& x, at::TensorList weights, const Bias& bias,
                       c10::IntArrayRef groups, int64_t stride, int64_t dilation, bool relu) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = pyconv::check_forward(x, weights, bias, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(x.device());
  return forward(KernelRequest::named(kernel), g, x, weights, bias, relu);
}

at::Tensor pyconv2d_grad_input(const at::Tensor& grad, at::TensorList weights, c10::IntArrayRef size,
                               c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  const Geometry g = pyconv::check_grad_input(grad, weights, size, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(grad.device());
  const char* by_default = g.stride == 1 ? kByDefault : kForTheRest;
  return grad_input(usual("pyconv2d_grad_input", g, grad, by_default), g, grad, weights);
}

at::Tensor pyconv2d_grad_input_by(c10::string_view kernel, const at::Tensor& grad, at::TensorList weights,
                                  c10::IntArrayRef size, c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = pyconv::check_grad_input(grad, weights, size, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(grad.device());
  return grad_input(KernelRequest::named(kernel), g, grad, weights);
}

std::vector<at::Tensor> pyconv2d_grad_weight(const at::Tensor& grad, const at::Tensor& x, c10::IntArrayRef shapes,
                                             c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  const Geometry g = pyconv::check_grad_weight(grad, x, shapes, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(grad.device());
  return grad_weight(usual("pyconv2d_grad_weight", g, grad, kForTheRest), g, grad, x);
}

std::vector<at::Tensor> pyconv2d_grad_weight_by(c10::string_view kernel, const at::Tensor& grad, const at::Tensor& x,
                                                c10::IntArrayRef shapes, c10::IntArrayRef groups, int64_t stride,
                                                int64_t dilation) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = pyconv::check_grad_weight(grad, x, shapes, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(grad.device());
  return grad_weight(KernelRequest::named(kernel), g, grad, x);
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CUDA, m) {
  m.impl("pyconv2d_compiled", TORCH_FN(pyconv2d<false>));
  m.impl("pyconv2d_relu_compiled", TORCH_FN(pyconv2d<true>));
  m.impl("pyconv2d_grad_input_compiled", TORCH_FN(pyconv2d_grad_input));
  m.impl("pyconv2d_grad_weight_compiled", TORCH_FN(pyconv2d_grad_weight));
  m.impl("pyconv2d_by", TORCH_FN(pyconv2d_by));
  m.impl("pyconv2d_grad_input_by", TORCH_FN(pyconv2d_grad_input_by));
  m.impl("pyconv2d_grad_weight_by", TORCH_FN(pyconv2d_grad_weight_by));
}

}  // namespace icconv_mm::cuda
