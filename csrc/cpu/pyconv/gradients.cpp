// The two gradients of the pyramidal convolution on the CPU.
#include "../../common/tensors.h"
#include "../engine/transposed.h"
#include "../engine/weight_grad.h"
#include "../operators.h"
#include "geometry.h"

namespace icconv_mm::cpu {
namespace {

constexpr int64_t kMostChannels = 64;  // input channels that share the reads of a gradient

void check_grad(const at::Tensor& grad, const Geometry& g, const at::Tensor& other, int64_t height, int64_t width) {
  check_type("gradient of pyconv2d", grad);
  TORCH_CHECK(grad.scalar_type() == other.scalar_type(), "gradient of pyconv2d: the gradient is ", grad.scalar_type(),
              ", the other tensor ", other.scalar_type());
  TORCH_CHECK(grad.size(1) == g.out_channels && grad.size(2) == height && grad.size(3) == width,
              "gradient of pyconv2d: expected ", g.out_channels, " channels of ", height, " x ", width, ", got ",
              grad.sizes());
}

// So many neighbouring input channels mostly lie in one group of each level; where not, zeros stand for other groups.
int64_t chunk_of(const Geometry& g) {
  int64_t chunk = kMostChannels;
  for (const Level& level : g.levels)
    if (level.groups > 1) chunk = std::min(chunk, level.channels.inside / kMaxLanes * kMaxLanes);
  return std::max<int64_t>(chunk, kMaxLanes);
}

Plan plan_of(const Kernels& k, const Geometry& g, int64_t dilation, const Residue& residue) {
  Planner planner(k);
  const int64_t chunk = chunk_of(g);
  for (int64_t begin = 0; begin < g.in_channels; begin += chunk) {
    const int64_t end = std::min(begin + chunk, g.in_channels);
    std::vector<Reads> reads;
    for (size_t i = 0; i < g.levels.size(); ++i) {
      const Level& level = g.levels[i];
      const int64_t inside = level.channels.inside, outside = level.outputs / level.groups;
      const int64_t first = begin / inside * outside, last = ((end - 1) / inside + 1) * outside;
      Reads of_level{static_cast<int64_t>(i), {}};
      for (const Tap& tap : residue.taps(level.taps(dilation)))
        of_level.list.push_back({tap.dy, tap.dx, level.first + first, last - first, tap.number});
      reads.push_back(std::move(of_level));
    }
    std::vector<Output> outputs;
    for (int64_t c = begin; c < end; ++c) outputs.push_back({c, c});
    planner.add(reads, outputs, true);
  }
  return planner.finish();
}

}  // namespace

at::Tensor pyconv2d_grad_input(const at::Tensor& grad, at::TensorList weights, c10::IntArrayRef size,
                               c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  TORCH_CHECK(grad.dim() == 4 && !weights.empty() && weights[0].dim() == 4 && !groups.empty() && size.size() == 2,
              "gradient of pyconv2d: expected 4-d tensors and a height and a width");
  const int64_t height = size[0], width = size[1];
  const Geometry g = make_geometry(channels_of(groups[0], weights[0].size(1)), weights, groups, stride, dilation);
  check_grad(grad, g, weights[0], (height + stride - 1) / stride, (width + stride - 1) / stride);
  at::Tensor result = empty({grad.size(0), g.in_channels, height, width}, grad.options().dtype(at::kFloat),
                            grad.suggest_memory_format());
  if (result.numel() == 0 || grad.numel() == 0) return result.zero_().to(grad.scalar_type());

  const Kernels& k = kernels();
  const Channels channels{1, g.out_channels, g.out_channels};
  const int64_t border = std::min((g.reach_w + stride - 1) / stride, grad.size(3));
  std::vector<Filters> filters;
  for (size_t i = 0; i < weights.size(); ++i) {
    const Level& level = g.levels[i];
    Filters f = Filters::of(weights[i], channels);
    std::swap(f.filter, f.channel);
    f.first = level.first, f.group_in = level.channels.inside, f.group_out = level.outputs / level.groups;
    filters.push_back(std::move(f));
  }
  const auto plan = [&](const Residue& residue) { return plan_of(k, g, dilation, residue); };
  transposed(k, {grad, channels, border}, stride, filters, plan, result);
  return result.to(grad.scalar_type());
}

namespace {

std::vector<WeightFamily> families_of(const Geometry& g, const std::vector<size_t>& levels, int64_t dilation,
                                      std::vector<at::Tensor>& results) {
  std::vector<WeightFamily> families;
  for (size_t number : levels) {
    const Level& level = g.levels[number];
    const int64_t outside = level.outputs / level.groups;
    for (int64_t group = 0; group < level.groups; ++group) {
      WeightFamily family;
      family.taps = level.taps(dilation);
      family.channel = group * level.channels.padded, family.inside = level.channels.inside;
      family.padded = level.channels.padded;
      family.result = results[number].mutable_data_ptr<float>();
      for (int64_t i = group * outside; i < (group + 1) * outside; ++i) family.outputs.push_back({level.first + i, i});
      families.push_back(std::move(family));
    }
  }
  return families;
}

}  // namespace

std::vector<at::Tensor> pyconv2d_grad_weight(const at::Tensor& grad, const at::Tensor& x, c10::IntArrayRef shapes,
                                             c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  check_steps(stride, dilation);
  TORCH_CHECK(grad.dim() == 4 && x.dim() == 4 && shapes.size() == 3 * groups.size(),
              "gradient of pyconv2d: expected 4-d tensors and three numbers per level");
  Geometry g;
  g.in_channels = x.size(1);
  std::vector<at::Tensor> results;
  for (size_t i = 0; i < groups.size(); ++i) {
    TORCH_CHECK(groups[i] >= 1, "gradient of pyconv2d: groups must be positive");
    const int64_t inside = x.size(1) / groups[i];
    g.add(shapes[3 * i], inside, shapes[3 * i + 1], shapes[3 * i + 2], groups[i], dilation);
    results.push_back(grad.new_zeros({shapes[3 * i], inside, shapes[3 * i + 1], shapes[3 * i + 2]}, at::kFloat));
  }
  check_grad(grad, g, x, (x.size(2) + stride - 1) / stride, (x.size(3) + stride - 1) / stride);
  if (grad.numel() > 0 && x.numel() > 0) {
    const Kernels& k = kernels();
    const Packed packed_grad = pack(k, {grad, {1, g.out_channels, g.out_channels}, 0});
    for (const std::vector<size_t>& levels : g.by_layout()) {
      const Packed packed = pack(k, {x, g.levels[levels[0]].channels, std::min(g.reach_w, x.size(3))});
      weight_gradient(k, families_of(g, levels, dilation, results), packed, packed_grad, stride);
    }
  }
  for (at::Tensor& result : results) result = result.to(grad.scalar_type());
  return results;
}

}  // namespace icconv_mm::cpu
