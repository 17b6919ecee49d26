// Kernels of CUDA by name on the CPU: what CUDA computes, by the same code, so that tests need no GPU.
#include "../inception_conv/kn2row/kn2row.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <memory>

#include "fused.h"

namespace icconv_mm::testing {
namespace {

using namespace kn2row;

struct Cpu {
  template <typename Pass>
  static void run(const Pass& pass, int64_t count) {
    at::parallel_for(0, count, 1024, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pass(static_cast<uint32_t>(i));
    });
  }
  static Tables tables(const Geometry& g, Pattern pattern, const Range& without) {
    thread_local std::vector<int> numbers;  // of the call at work
    numbers = make_plan(g, pattern, without);
    return {numbers.data(), numbers.data()};
  }
  static bool exact_float() { return true; }
};

void check(c10::string_view kernel, bool hybrid, const Geometry& g, Pattern pattern) {
  TORCH_CHECK(kernel == "kn2row" || (hybrid && kernel == "hybrid"), "inception_conv2d on the CPU has no kernel '",
              std::string(kernel), "' to ask for by name");
  const std::string reason = refusal(g, pattern);
  TORCH_CHECK(reason.empty(), reason);
}

at::Tensor output(c10::string_view kernel, const at::Tensor& x, const at::Tensor& weight,
                  const Optional<at::Tensor>& bias, Pattern pattern, int64_t stride, int64_t groups, bool relu) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = check_forward(x, weight, bias, pattern, stride, groups);
  const at::Tensor shift = bias ? bias->to(x.scalar_type()).contiguous() : at::Tensor();
  if (kernel == "fused" || kernel == "fused_wgmma")
    return forward_fused(g, x, weight, shift, pattern, relu, kernel == "fused_wgmma");
  check(kernel, true, g, pattern);
  if (g.batch * g.out_channels * g.out_height * g.out_width == 0)
    return at::empty({g.batch, g.out_channels, g.out_height, g.out_width}, x.options(), x.suggest_memory_format());
  return forward<Cpu>(g, x, weight, shift, pattern, relu, kernel == "hybrid");
}

at::Tensor grad_input(c10::string_view kernel, const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size,
                      Pattern pattern, int64_t stride, int64_t groups) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = check_grad_input(grad, weight, size, pattern, stride, groups);
  check(kernel, false, g, pattern);
  if (grad.numel() == 0) return at::zeros({g.batch, g.in_channels, g.height, g.width}, grad.options());
  return Call<Cpu>(g, pattern, {}).grad_input(grad, weight);
}

at::Tensor grad_weight(c10::string_view kernel, const at::Tensor& grad, const at::Tensor& x, Pattern pattern,
                       int64_t stride, int64_t groups) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = check_grad_weight(grad, x, pattern, stride, groups);
  check(kernel, false, g, pattern);
  if (grad.numel() == 0) return at::zeros({g.out_channels, g.group_in, 3, 3}, grad.options());
  return Call<Cpu>(g, pattern, {}).grad_weight(grad, x);
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) {
  m.impl("inception_conv2d_by", TORCH_FN(output));
  m.impl("inception_conv2d_grad_input_by", TORCH_FN(grad_input));
  m.impl("inception_conv2d_grad_weight_by", TORCH_FN(grad_weight));
}

}  // namespace icconv_mm::testing
