// The two gradients of the inception convolution on the CPU.
#include "../../inception_conv.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <map>
#include <utility>

#include "../direct/transposed.h"
#include "../direct/weight_grad.h"

namespace icconv_mm {
namespace {

void check_dtypes(const at::Tensor& grad, const at::Tensor& other) {
  TORCH_CHECK((grad.scalar_type() == at::kFloat || grad.scalar_type() == at::kBFloat16) &&
                  grad.scalar_type() == other.scalar_type(),
              "gradient of inception_conv2d: the CPU kernel takes float32 or bfloat16, got ", grad.scalar_type(),
              " and ", other.scalar_type());
}

void check_grad(const at::Tensor& grad, const Geometry& g) {
  const std::vector<int64_t> expected{g.batch, g.out_channels, g.out_height, g.out_width};
  TORCH_CHECK(grad.sizes() == c10::IntArrayRef(expected), "gradient of inception_conv2d: expected a gradient of ",
              c10::IntArrayRef(expected), ", got ", grad.sizes());
}

std::vector<Tap> taps_of(int64_t dilation_h, int64_t dilation_w) {
  std::vector<Tap> taps;
  for (int64_t tap = 0; tap < kTaps; ++tap)
    taps.push_back({(tap / 3 - 1) * dilation_h, (tap % 3 - 1) * dilation_w, tap});
  return taps;
}

// All runs at once: an input pixel sums over the outputs of its group, each at its own distance.
Plan plan_of(const Kernels& k, const Geometry& g, const Residue& residue) {
  Planner planner(k);
  for (int64_t group = 0; group < g.groups; ++group) {
    Reads reads{0, {}};
    for (const Run& run : g.runs)
      if (run.group == group)
        for (const Tap& tap : residue.taps(taps_of(run.dilation_h, run.dilation_w)))
          reads.list.push_back({tap.dy, tap.dx, run.begin, run.end - run.begin, tap.number});
    std::vector<Output> outputs;
    for (int64_t i = 0; i < g.group_in; ++i) outputs.push_back({group * g.group_in + i, i});
    planner.add({reads}, outputs, true);
  }
  return planner.finish();
}

at::Tensor grad_input(const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size, c10::IntArrayRef pattern,
                      int64_t stride, int64_t groups) {
  check_dtypes(grad, weight);
  TORCH_CHECK(grad.dim() == 4 && weight.dim() == 4 && size.size() == 2,
              "gradient of inception_conv2d: expected 4-d tensors and a height and a width");
  const std::vector<int64_t> shape{grad.size(0), weight.size(1) * groups, size[0], size[1]};
  const Geometry g = make_geometry(shape, weight.sizes(), pattern, stride, groups);
  check_grad(grad, g);
  at::Tensor result = at::empty(shape, grad.options().dtype(at::kFloat), grad.suggest_memory_format());
  if (result.numel() == 0 || grad.numel() == 0) return result.zero_().to(grad.scalar_type());

  const Kernels& k = kernels();
  // a distance of the gradient is at most (dilation + stride - 1) / stride pixels
  const int64_t border = std::min((g.max_dilation_w - 1) / stride + 1, g.out_width);
  const Channels channels{1, g.out_channels, g.out_channels};
  Filters filters{&weight, channels, weight.stride(1), weight.stride(0), {}};
  for (int64_t tap = 0; tap < kTaps; ++tap)
    filters.tap.push_back(tap / 3 * weight.stride(2) + tap % 3 * weight.stride(3));
  const auto plan = [&](const Residue& residue) { return plan_of(k, g, residue); };
  transposed(k, {grad, channels, border}, stride, {filters}, plan, result);
  return result.to(grad.scalar_type());
}

at::Tensor grad_weight(const at::Tensor& grad, const at::Tensor& x, c10::IntArrayRef pattern, int64_t stride,
                       int64_t groups) {
  check_dtypes(grad, x);
  TORCH_CHECK(grad.dim() == 4 && x.dim() == 4 && groups >= 1, "gradient of inception_conv2d: expected 4-d tensors");
  const std::vector<int64_t> size{grad.size(1), x.size(1) / groups, 3, 3};
  const Geometry g = make_geometry(x.sizes(), size, pattern, stride, groups);
  check_grad(grad, g);
  at::Tensor result = at::zeros(size, grad.options().dtype(at::kFloat));
  if (result.numel() == 0 || grad.numel() == 0) return result.to(grad.scalar_type());

  const Kernels& k = kernels();
  const Packed packed = pack(k, {x, Channels::of(groups, g.group_in), std::min(g.max_dilation_w, g.width)});
  const Packed packed_grad = pack(k, {grad, {1, g.out_channels, g.out_channels}, 0});
  std::map<std::vector<int64_t>, WeightFamily> families;
  for (const Run& run : g.runs) {
    WeightFamily& family = families[{run.group, run.dilation_h, run.dilation_w}];
    family.taps = taps_of(run.dilation_h, run.dilation_w);
    family.channel = run.group * packed.channels.padded, family.inside = g.group_in;
    family.padded = packed.channels.padded;
    family.result = result.mutable_data_ptr<float>();
    for (int64_t oc = run.begin; oc < run.end; ++oc) family.outputs.push_back({oc, oc});
  }
  std::vector<WeightFamily> list;
  for (auto& family : families) list.push_back(std::move(family.second));
  weight_gradient(k, std::move(list), packed, packed_grad, stride);
  return result.to(grad.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) {
  m.impl("inception_conv2d_grad_input_compiled", TORCH_FN(grad_input));
  m.impl("inception_conv2d_grad_weight_compiled", TORCH_FN(grad_weight));
}

}  // namespace icconv_mm
