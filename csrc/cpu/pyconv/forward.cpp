// Pyramidal convolution on the CPU: forward, plain and with a ReLU. All levels read one packed input and write one
// output.
#include "../../common/tensors.h"

#include "../engine/engine.h"
#include "../engine/prepared.h"
#include "../operators.h"
#include "geometry.h"

namespace icconv_mm::cpu {
namespace {

Plan make_plan(const Kernels& k, const Geometry& g, const std::vector<size_t>& levels, int64_t dilation) {
  Planner planner(k);
  for (size_t number : levels) {
    const Level& level = g.levels[number];
    std::vector<std::vector<Output>> outputs(level.groups);
    for (int64_t i = 0; i < level.outputs; ++i)
      outputs[i / (level.outputs / level.groups)].push_back({level.first + i, i});
    plan_groups(planner, k, level.channels, level.taps(dilation), outputs, static_cast<int64_t>(number));
  }
  return planner.finish();
}

std::shared_ptr<const Prepared> prepare_levels(const Kernels& k, const Geometry& g, at::TensorList weights,
                                               const std::vector<size_t>& levels, int64_t dilation) {
  std::vector<int64_t> key{1, k.lanes, g.levels[0].channels.pairs, dilation, g.in_channels};
  std::vector<Filters> filters;
  for (size_t i = 0; i < weights.size(); ++i) {
    key.push_back(g.levels[i].groups);
    filters.push_back(Filters::of(weights[i], g.levels[i].channels));
  }
  key.insert(key.end(), levels.begin(), levels.end());
  return prepare(weights.vec(), std::move(key), [&] {
    Prepared made;
    made.plan = make_plan(k, g, levels, dilation);
    made.weight = pack_weights(made.plan, filters, weights[0].options());
    return made;
  });
}

template <bool kRelu>
at::Tensor forward(const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias,
                   c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  check_type("pyconv2d", x);
  TORCH_CHECK(x.dim() == 4, "pyconv2d: x must be 4-d, got ", x.sizes());
  for (const at::Tensor& weight : weights)
    TORCH_CHECK(weight.scalar_type() == x.scalar_type(), "pyconv2d: x is ", x.scalar_type(), ", a weight ",
                weight.scalar_type());
  Geometry g = make_geometry(x.size(1), weights, groups, stride, dilation);
  TORCH_CHECK(!bias || bias->numel() == g.out_channels, "pyconv2d: bias must have ", g.out_channels, " elements");
  const int64_t height = (x.size(2) + stride - 1) / stride, width = (x.size(3) + stride - 1) / stride;
  at::Tensor out =
      empty({x.size(0), g.out_channels, height, width}, x.options().dtype(at::kFloat), x.suggest_memory_format());
  if (out.numel() == 0) return out.to(x.scalar_type());

  const Kernels* pairs = x.scalar_type() == at::kBFloat16 && g.even() ? pair_kernels() : nullptr;
  if (pairs) g.pair_up();
  const Kernels& k = pairs ? *pairs : kernels();
  const at::Tensor shift = bias ? bias->to(at::kFloat).contiguous() : at::Tensor();
  for (const std::vector<size_t>& levels : g.by_layout()) {
    const auto prepared = prepare_levels(k, g, weights, levels, dilation);
    const Source input{x, g.levels[levels[0]].channels, std::min(g.reach_w, x.size(3))};
    run(k, prepared->plan, prepared->weight.const_data_ptr<float>(), input, stride, Target::of(out, shift, kRelu));
  }
  return out.to(x.scalar_type());
}

}  // namespace

at::Tensor pyconv2d(const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias,
                    c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  return forward<false>(x, weights, bias, groups, stride, dilation);
}
at::Tensor pyconv2d_relu(const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias,
                         c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  return forward<true>(x, weights, bias, groups, stride, dilation);
}

}  // namespace icconv_mm::cpu
