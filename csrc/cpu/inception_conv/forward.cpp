// Inception convolution on the CPU: forward, plain and with a ReLU.
//
// A direct convolution. The input is packed into channel-inner form with a zero border, so that a dilation is nothing
// but an offset and all runs of a layer read the same memory; hence the price of a dense convolution and not of one
// convolution per run. See ../engine/plan.h for the jobs, ../simd/tiles.inc for the inner loops.
#include "../../inception_conv/geometry.h"

#include <map>

#include "../../common/tensors.h"
#include "../engine/engine.h"
#include "../engine/prepared.h"
#include "../operators.h"

namespace icconv_mm::cpu {
namespace {

using namespace inception_conv;

Plan make_plan(const Kernels& k, const Geometry& g, Pattern pattern, const Channels& channels) {
  std::map<std::pair<int64_t, int64_t>, std::vector<std::vector<Output>>> by_dilation;
  for (const Run& run : cut_runs(pattern, g.group_out)) {
    auto& outputs = by_dilation[{run.dilation_h, run.dilation_w}];
    outputs.resize(g.groups);
    for (int64_t oc = run.begin; oc < run.end; ++oc) outputs[run.group].push_back({oc, oc});
  }
  Planner planner(k);
  for (const auto& [dilation, outputs] : by_dilation) {
    plan_groups(planner, k, channels, taps_of(3, 3, dilation.first, dilation.second), outputs, 0);
  }
  return planner.finish();
}

template <bool kRelu>
at::Tensor forward(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias, Pattern pattern,
                   int64_t stride, int64_t groups) {
  const Geometry g = check_forward(x, weight, bias, pattern, stride, groups);
  check_type("inception_conv2d", x);
  const auto format = x.suggest_memory_format();
  at::Tensor out = empty({g.batch, g.out_channels, g.out_height, g.out_width}, x.options().dtype(at::kFloat), format);
  if (out.numel() == 0) return out.to(x.scalar_type());

  const Kernels* pairs = x.scalar_type() == at::kBFloat16 && g.group_in % 2 == 0 ? pair_kernels() : nullptr;
  const Kernels& k = pairs ? *pairs : kernels();
  const Channels channels = Channels::of(groups, g.group_in, pairs);
  std::vector<int64_t> key{0, k.lanes, channels.pairs, groups};
  key.insert(key.end(), pattern.begin(), pattern.end());
  const std::shared_ptr<const Prepared> prepared = prepare({weight}, std::move(key), [&] {
    Prepared made;
    made.plan = make_plan(k, g, pattern, channels);
    made.weight = pack_weights(made.plan, {Filters::of(weight, channels)}, weight.options());
    return made;
  });
  const at::Tensor shift = bias ? bias->to(at::kFloat).contiguous() : at::Tensor();
  const Source input{x, channels, std::min(max_dilation(pattern, 1), g.width)};
  run(k, prepared->plan, prepared->weight.const_data_ptr<float>(), input, stride, Target::of(out, shift, kRelu));
  return out.to(x.scalar_type());
}

}  // namespace

at::Tensor inception_conv2d(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                            Pattern pattern, int64_t stride, int64_t groups) {
  return forward<false>(x, weight, bias, pattern, stride, groups);
}
at::Tensor inception_conv2d_relu(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                                 Pattern pattern, int64_t stride, int64_t groups) {
  return forward<true>(x, weight, bias, pattern, stride, groups);
}

}  // namespace icconv_mm::cpu
