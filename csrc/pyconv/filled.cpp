// Pyramidal convolutions by torch's own, of filters in which zeros stand for what groups leave out: see levels.h.
#include "levels.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>

namespace icconv_mm::pyconv {
namespace {

constexpr int64_t kGroupChannels = 16;  // a step of tensor cores

// How many groups of a level become one.
int64_t groups_to_merge(const Level& level, int64_t in_channels) {
  const int64_t group_in = in_channels / level.groups;
  for (int64_t merged = 1; merged < level.groups; ++merged)
    if (level.groups % merged == 0 && merged * group_in >= kGroupChannels) return merged;
  return level.groups;
}

// filled [outputs, merged * group_in, h, w] as [outputs of a group ..., groups that share, the place among them]: a
// view of those of its elements that the level has, in the order of `split`.
at::Tensor own_elements(const at::Tensor& filled, const Level& level, int64_t merged) {
  const int64_t group_out = level.outputs / level.groups, group_in = filled.size(1) / merged;
  return filled.view({level.groups / merged, merged, group_out, merged, group_in, filled.size(2), filled.size(3)})
      .diagonal(0, 1, 3);
}

at::Tensor split(const at::Tensor& weight, const Level& level, int64_t merged) {
  const int64_t group_out = level.outputs / level.groups;
  return weight.reshape({level.groups / merged, merged, group_out, weight.size(1), weight.size(2), weight.size(3)})
      .permute({0, 2, 3, 4, 5, 1});
}

at::Tensor fill(const at::Tensor& weight, const Level& level, int64_t merged) {
  if (merged == 1) return weight;
  at::Tensor filled = at::zeros({level.outputs, merged * weight.size(1), level.height, level.width}, weight.options());
  own_elements(filled, level, merged).copy_(split(weight, level, merged));
  return filled;
}

// Back: the gradient of a level's filters out of that of the filled ones.
at::Tensor empty_out(const at::Tensor& filled, const Level& level, int64_t merged) {
  if (merged == 1) return filled;
  return own_elements(filled.contiguous(), level, merged)
      .permute({0, 5, 1, 2, 3, 4})
      .reshape({level.outputs, filled.size(1) / merged, level.height, level.width});
}

// The part of the largest kernel that is a level's own.
at::Tensor middle(const at::Tensor& filters, const Level& level) {
  return filters.narrow(0, level.first, level.outputs)
      .narrow(2, (filters.size(2) - level.height) / 2, level.height)
      .narrow(3, (filters.size(3) - level.width) / 2, level.width);
}

struct Dense {
  int64_t height = 1, width = 1;
  explicit Dense(const Geometry& g) {
    for (const Level& level : g.levels) height = std::max(height, level.height), width = std::max(width, level.width);
  }
  at::Tensor filters(const Geometry& g, at::TensorList weights) const {
    at::Tensor all = at::zeros({g.out_channels, g.in_channels, height, width}, weights[0].options());
    for (size_t l = 0; l < weights.size(); ++l)
      middle(all, g.levels[l]).copy_(fill(weights[l], g.levels[l], g.levels[l].groups));
    return all;
  }
};

struct Steps {
  std::array<int64_t, 2> stride, padding, dilation;
  Steps(const Geometry& g, int64_t height, int64_t width)
      : stride{g.stride, g.stride}, padding{g.dilation * (height / 2), g.dilation * (width / 2)},
        dilation{g.dilation, g.dilation} {}
};

at::Tensor convolve(const Geometry& g, const at::Tensor& x, const at::Tensor& filters, const Optional<at::Tensor>& bias,
                    int64_t groups) {
  const Steps s(g, filters.size(2), filters.size(3));
  return at::conv2d(x, filters, bias, s.stride, c10::IntArrayRef(s.padding), s.dilation, groups);
}

// The gradient for the input or for the filters.
at::Tensor gradient(const Geometry& g, const at::Tensor& grad, const at::Tensor& x, const at::Tensor& filters,
                    int64_t groups, bool of_input) {
  const Steps s(g, filters.size(2), filters.size(3));
  const int64_t none[] = {0, 0};
  const auto [to_x, to_filters, to_bias] =
      at::convolution_backward(grad, x, filters, c10::nullopt, s.stride, s.padding, s.dilation, false, none, groups,
                               {of_input, !of_input, false});
  return of_input ? to_x : to_filters;
}

at::Tensor part(const at::Tensor& grad, const Level& level) { return grad.narrow(1, level.first, level.outputs); }

}  // namespace

bool is_filled(const std::string& kernel) { return kernel == "dense" || kernel == "merged"; }

at::Tensor forward_filled(const std::string& kernel, const Geometry& g, const at::Tensor& x, at::TensorList weights,
                          const at::Tensor& bias, bool relu) {
  at::Tensor out;
  if (kernel == "dense") {
    const auto shift = bias.defined() ? Optional<at::Tensor>(bias) : Optional<at::Tensor>();
    out = convolve(g, x, Dense(g).filters(g, weights), shift, 1);
  } else {
    std::vector<at::Tensor> outputs;
    for (size_t l = 0; l < weights.size(); ++l) {
      const Level& level = g.levels[l];
      const int64_t merged = groups_to_merge(level, g.in_channels);
      Optional<at::Tensor> shift;
      if (bias.defined()) shift = bias.narrow(0, level.first, level.outputs);
      outputs.push_back(convolve(g, x, fill(weights[l], level, merged), shift, level.groups / merged));
    }
    out = at::cat(outputs, 1);
  }
  return relu ? out.relu_() : out;
}

at::Tensor grad_input_filled(const std::string& kernel, const Geometry& g, const at::Tensor& grad,
                             at::TensorList weights) {
  const at::Tensor like = grad.new_empty({1}).expand({g.batch, g.in_channels, g.height, g.width});
  if (kernel == "dense") return gradient(g, grad, like, Dense(g).filters(g, weights), 1, true);
  const bool narrow = grad.scalar_type() == at::kHalf || grad.scalar_type() == at::kBFloat16;
  at::Tensor sum;  // of the levels; rounded once
  for (size_t l = 0; l < weights.size(); ++l) {
    const Level& level = g.levels[l];
    const int64_t merged = groups_to_merge(level, g.in_channels);
    const at::Tensor share =
        gradient(g, part(grad, level), like, fill(weights[l], level, merged), level.groups / merged, true);
    if (!sum.defined())
      sum = narrow ? share.to(at::kFloat) : share;
    else
      sum.add_(share);
  }
  return sum.to(grad.scalar_type());
}

std::vector<at::Tensor> grad_weight_filled(const std::string& kernel, const Geometry& g, const at::Tensor& grad,
                                           const at::Tensor& x) {
  std::vector<at::Tensor> results;
  const at::Tensor one = x.new_empty({1});
  const Dense dense(g);
  at::Tensor all;
  if (kernel == "dense")
    all = gradient(g, grad, x, one.expand({g.out_channels, g.in_channels, dense.height, dense.width}), 1, false);
  for (const Level& level : g.levels) {
    if (all.defined()) {
      results.push_back(empty_out(middle(all, level), level, level.groups));
      continue;
    }
    const int64_t merged = groups_to_merge(level, g.in_channels), inside = g.in_channels / level.groups;
    const at::Tensor like = one.expand({level.outputs, merged * inside, level.height, level.width});
    results.push_back(empty_out(gradient(g, part(grad, level), x, like, level.groups / merged, false), level, merged));
  }
  return results;
}

}  // namespace icconv_mm::pyconv
