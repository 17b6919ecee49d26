// The two gradients of the inception convolution on the CPU.
#include "../../inception_conv/geometry.h"

#include <map>
#include <utility>

#include "../../common/tensors.h"
#include "../engine/transposed.h"
#include "../engine/weight_grad.h"
#include "../operators.h"

namespace icconv_mm::cpu {
namespace {

using namespace inception_conv;

// All runs at once: an input pixel sums over the outputs of its group, each at its own distance.
Plan plan_of(const Kernels& k, const Geometry& g, Pattern pattern, const Residue& residue) {
  const std::vector<Run> runs = cut_runs(pattern, g.group_out);
  Planner planner(k);
  for (int64_t group = 0; group < g.groups; ++group) {
    Reads reads{0, {}};
    for (const Run& run : runs)
      if (run.group == group)
        for (const Tap& tap : residue.taps(taps_of(3, 3, run.dilation_h, run.dilation_w)))
          reads.list.push_back({tap.dy, tap.dx, run.begin, run.end - run.begin, tap.number});
    std::vector<Output> outputs;
    for (int64_t i = 0; i < g.group_in; ++i) outputs.push_back({group * g.group_in + i, i});
    planner.add({reads}, outputs, true);
  }
  return planner.finish();
}

}  // namespace

at::Tensor inception_conv2d_grad_input(const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size,
                                       Pattern pattern, int64_t stride, int64_t groups) {
  const Geometry g = check_grad_input(grad, weight, size, pattern, stride, groups);
  check_type("inception_conv2d_grad_input", grad);
  at::Tensor result = empty({g.batch, g.in_channels, g.height, g.width}, grad.options().dtype(at::kFloat),
                            grad.suggest_memory_format());
  if (result.numel() == 0 || grad.numel() == 0) return result.zero_().to(grad.scalar_type());

  const Kernels& k = kernels();
  // a distance of the gradient is at most (dilation + stride - 1) / stride pixels
  const int64_t border = std::min((max_dilation(pattern, 1) - 1) / stride + 1, g.out_width);
  const Channels channels{1, g.out_channels, g.out_channels};
  Filters filters = Filters::of(weight, channels);
  std::swap(filters.filter, filters.channel);
  const auto plan = [&](const Residue& residue) { return plan_of(k, g, pattern, residue); };
  transposed(k, {grad, channels, border}, stride, {filters}, plan, result);
  return result.to(grad.scalar_type());
}

at::Tensor inception_conv2d_grad_weight(const at::Tensor& grad, const at::Tensor& x, Pattern pattern, int64_t stride,
                                        int64_t groups) {
  const Geometry g = check_grad_weight(grad, x, pattern, stride, groups);
  check_type("inception_conv2d_grad_weight", grad);
  at::Tensor result = empty({g.out_channels, g.group_in, 3, 3}, grad.options().dtype(at::kFloat));
  if (result.numel() == 0 || grad.numel() == 0) return result.zero_().to(grad.scalar_type());

  const Kernels& k = kernels();
  const Packed packed = pack(k, {x, Channels::of(groups, g.group_in), std::min(max_dilation(pattern, 1), g.width)});
  const Packed packed_grad = pack(k, {grad, {1, g.out_channels, g.out_channels}, 0});
  std::map<std::vector<int64_t>, WeightFamily> families;
  for (const Run& run : cut_runs(pattern, g.group_out)) {
    WeightFamily& family = families[{run.group, run.dilation_h, run.dilation_w}];
    family.taps = taps_of(3, 3, run.dilation_h, run.dilation_w);
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

}  // namespace icconv_mm::cpu
