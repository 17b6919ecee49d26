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

// The kernel that serves a call with anything to compute.
template <typename CutOf>
Choice choose(const KernelRequest& request, const Geometry& g, at::ScalarType dtype, bool backward,
              const CutOf& cut_of) {
  TORCH_CHECK(request.allows("tiled") || pyconv::is_filled(request.kernel), "pyconv2d has no kernel '", request.kernel,
              "'");
  if (request.is("tiled") && request.granted(pyconv::refusal(g, dtype, backward)) && fits(g))
    if (const Cut cut = cut_of()) return {request.kernel, cut};
  TORCH_CHECK(!request.by_name || !request.is("tiled"),
              "the tiled kernel of pyconv2d does not take such a call on this GPU");
  return {filled(request), {}};
}

Choice choose_map(const KernelRequest& request, const Geometry& g, const at::Tensor& source, bool backward) {
  return choose(request, g, source.scalar_type(), backward, [&] { return pyconv_tiled_cut(g, backward); });
}

Choice choose_grad_weight(const KernelRequest& request, const Geometry& g, const at::Tensor& x) {
  return choose(request, g, x.scalar_type(), false, [&] { return pyconv_tiled_grad_weight_cut(g); });
}

// Whether there is nothing to compute: no kernel runs.
bool is_empty(const Geometry& g) {
  return g.batch == 0 || g.in_channels == 0 || g.out_channels == 0 || g.height == 0 || g.width == 0;
}

at::Tensor forward(const KernelRequest& request, const Geometry& g, const at::Tensor& x, at::TensorList weights,
                   const Bias& bias, bool relu) {
  if (g.batch * g.out_channels * g.out_height * g.out_width == 0)
    return at::empty({g.batch, g.out_channels, g.out_height, g.out_width}, x.options(), x.suggest_memory_format());
  const at::Tensor shift = bias ? bias->to(x.scalar_type()).contiguous() : at::Tensor();
  const Choice choice = choose_map(request, g, x, false);
  if (choice.is("tiled")) return pyconv_tiled(choice.cut, g, x, weights, shift, relu, false);
  return pyconv::forward_filled(choice.kernel, g, x, weights, shift, relu);
}

at::Tensor grad_input(const KernelRequest& request, const Geometry& g, const at::Tensor& grad, at::TensorList weights) {
  if (grad.numel() == 0) return at::zeros({g.batch, g.in_channels, g.height, g.width}, grad.options());
  const Choice choice = choose_map(request, g, grad, true);
  if (choice.is("tiled")) return pyconv_tiled(choice.cut, g, grad, weights, {}, false, true);
  return pyconv::grad_input_filled(choice.kernel, g, grad, weights);
}

std::vector<at::Tensor> grad_weight(const KernelRequest& request, const Geometry& g, const at::Tensor& grad,
                                    const at::Tensor& x) {
  if (grad.numel() > 0 && x.numel() > 0) {
    const Choice choice = choose_grad_weight(request, g, x);
    if (choice.is("tiled")) return pyconv_tiled_grad_weight(choice.cut, g, grad, x);
    return pyconv::grad_weight_filled(choice.kernel, g, grad, x);
  }
  std::vector<at::Tensor> nothing;
  for (const pyconv::Level& level : g.levels)
    nothing.push_back(
        at::zeros({level.outputs, g.in_channels / level.groups, level.height, level.width}, grad.options()));
  return nothing;
}

KernelRequest usual_grad_input(const Geometry& g, const at::Tensor& grad) {
  return usual("pyconv2d_grad_input", g, grad, g.stride == 1 ? kByDefault : kForTheRest);
}

KernelRequest usual_grad_weight(const Geometry& g, const at::Tensor& x) {
  return usual("pyconv2d_grad_weight", g, x, kForTheRest);
}

template <bool kRelu>
at::Tensor pyconv2d(const at::Tensor& x, at::TensorList weights, const Bias& bias, c10::IntArrayRef groups,
                    int64_t stride, int64_t dilation) {
  const Geometry g = pyconv::check_forward(x, weights, bias, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(x.device());
  return forward(usual("pyconv2d", g, x), g, x, weights, bias, kRelu);
}

std::string pyconv2d_kernel(const at::Tensor& x, at::TensorList weights, const Bias& bias, c10::IntArrayRef groups,
                            int64_t stride, int64_t dilation) {
  const Geometry g = pyconv::check_forward(x, weights, bias, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(x.device());
  return is_empty(g) ? "" : choose_map(usual("pyconv2d", g, x), g, x, false).kernel;
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
  return grad_input(usual_grad_input(g, grad), g, grad, weights);
}

std::string pyconv2d_grad_input_kernel(const at::Tensor& grad, at::TensorList weights, c10::IntArrayRef size,
                                       c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  const Geometry g = pyconv::check_grad_input(grad, weights, size, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(grad.device());
  return is_empty(g) ? "" : choose_map(usual_grad_input(g, grad), g, grad, true).kernel;
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
  return grad_weight(usual_grad_weight(g, x), g, grad, x);
}

std::string pyconv2d_grad_weight_kernel(const at::Tensor& grad, const at::Tensor& x, c10::IntArrayRef shapes,
                                        c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  const Geometry g = pyconv::check_grad_weight(grad, x, shapes, groups, stride, dilation);
  const c10::cuda::CUDAGuard guard(grad.device());
  return is_empty(g) ? "" : choose_grad_weight(usual_grad_weight(g, x), g, x).kernel;
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
  m.impl("pyconv2d_kernel", TORCH_FN(pyconv2d_kernel));
  m.impl("pyconv2d_grad_input_kernel", TORCH_FN(pyconv2d_grad_input_kernel));
  m.impl("pyconv2d_grad_weight_kernel", TORCH_FN(pyconv2d_grad_weight_kernel));
  m.impl("pyconv2d_by", TORCH_FN(pyconv2d_by));
  m.impl("pyconv2d_grad_input_by", TORCH_FN(pyconv2d_grad_input_by));
  m.impl("pyconv2d_grad_weight_by", TORCH_FN(pyconv2d_grad_weight_by));
}

}  // namespace icconv_mm::cuda
