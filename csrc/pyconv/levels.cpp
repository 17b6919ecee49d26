// See levels.h.
#include "levels.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "../common/common.h"
#include "../common/program.h"

namespace icconv_mm::pyconv {
namespace {

Geometry make_geometry(int64_t batch, int64_t channels, int64_t height, int64_t width, c10::IntArrayRef shapes,
                       c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  TORCH_CHECK(stride >= 1 && dilation >= 1 && stride <= kMaxStep && dilation <= kMaxStep,
              "pyconv2d: stride and dilation must be in 1..", kMaxStep, ", got ", stride, " and ", dilation);
  TORCH_CHECK(!groups.empty() && shapes.size() == 3 * groups.size(), "pyconv2d: expected three numbers for each of ",
              groups.size(), " levels, got ", shapes.size());
  const auto strided = [&](int64_t size) { return size > 0 ? (size - 1) / stride + 1 : 0; };
  Geometry g{batch, channels, height, width, 0, strided(height), strided(width), stride, dilation, {}};
  for (size_t l = 0; l < groups.size(); ++l) {
    const Level level{g.out_channels, shapes[3 * l], shapes[3 * l + 1], shapes[3 * l + 2], groups[l]};
    TORCH_CHECK(level.groups >= 1 && channels % level.groups == 0 && level.outputs % level.groups == 0 &&
                    level.height % 2 == 1 && level.width % 2 == 1,
                "pyconv2d: level ", l, " of ", level.outputs, " channels, a kernel of ", level.height, " x ",
                level.width, " and ", level.groups, " groups does not fit an input of ", channels, " channels");
    g.levels.push_back(level);
    g.out_channels += level.outputs;
  }
  return g;
}

std::vector<int64_t> shapes_of(at::TensorList weights, int64_t channels, c10::IntArrayRef groups) {
  TORCH_CHECK(weights.size() == groups.size(), "pyconv2d: expected one number of groups for each of ", weights.size(),
              " weights, got ", groups.size());
  std::vector<int64_t> shapes;
  for (size_t l = 0; l < weights.size(); ++l) {
    const at::Tensor& weight = weights[l];
    TORCH_CHECK(weight.dim() == 4 && channels_of(groups[l], weight.size(1)) == channels,
                "pyconv2d: the weight of level ", l, ", ", weight.sizes(), ", does not fit ", channels, " channels in ",
                groups[l], " groups");
    shapes.insert(shapes.end(), {weight.size(0), weight.size(2), weight.size(3)});
  }
  return shapes;
}

void check_alike(const at::Tensor& first, const at::Tensor& other) {
  TORCH_CHECK(first.device() == other.device() && first.scalar_type() == other.scalar_type(),
              "pyconv2d: tensors must be alike, got ", first.scalar_type(), " on ", first.device(), " and ",
              other.scalar_type(), " on ", other.device());
}

void check_output(const at::Tensor& grad, const Geometry& g) {
  const int64_t shape[] = {g.batch, g.out_channels, g.out_height, g.out_width};
  TORCH_CHECK(grad.sizes() == c10::IntArrayRef(shape), "pyconv2d: expected a gradient of ", c10::IntArrayRef(shape),
              ", got ", grad.sizes());
}

// Which of a block's tiles reads which taps of a step, as bits.
std::map<std::pair<int, int>, int> masks_of(const Geometry& g, int column, int channel, bool backward, int phase) {
  std::map<std::pair<int, int>, int> masks;  // by (dy, dx) in taps
  const int64_t columns = backward ? g.in_channels : g.out_channels;
  const int step = phase_step(g, backward), apart = static_cast<int>(g.dilation);
  for (int tile = 0; tile < kTilesOfBlock && column + tile * kTileColumns < columns; ++tile)
    for (const Level& level : g.levels) {
      const int first = column + tile * kTileColumns;
      const bool shared = backward ? meet(level, g.in_channels, first, kTileColumns, channel, kStepChannels)
                                   : meet(level, g.in_channels, channel, kStepChannels, first, kTileColumns);
      if (!shared) continue;
      const int h = static_cast<int>(level.height / 2), w = static_cast<int>(level.width / 2);
      for (int dy = -h; dy <= h; ++dy)
        for (int dx = -w; dx <= w; ++dx)  // other taps of this phase fall between outputs
          if ((phase / step + dy * apart) % step == 0 && (phase % step + dx * apart) % step == 0)
            masks[{dy, dx}] |= 1 << tile;
    }
  return masks;
}

}  // namespace

Geometry check_forward(const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias,
                       c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  TORCH_CHECK(x.dim() == 4, "pyconv2d: x must be 4-d, got ", x.sizes());
  for (const at::Tensor& weight : weights) check_alike(x, weight);
  const Geometry g = make_geometry(x.size(0), x.size(1), x.size(2), x.size(3), shapes_of(weights, x.size(1), groups),
                                   groups, stride, dilation);
  TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == g.out_channels && bias->device() == x.device()),
              "pyconv2d: the bias must be [", g.out_channels, "] on ", x.device());
  return g;
}

Geometry check_grad_input(const at::Tensor& grad, at::TensorList weights, c10::IntArrayRef size,
                          c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  TORCH_CHECK(grad.dim() == 4 && size.size() == 2 && !weights.empty() && weights.size() == groups.size(),
              "pyconv2d_grad_input: expected a 4-d gradient, a height and a width, and groups for each weight");
  for (const at::Tensor& weight : weights) check_alike(grad, weight);
  const int64_t channels = channels_of(groups[0], weights[0].size(1));
  const Geometry g = make_geometry(grad.size(0), channels, size[0], size[1], shapes_of(weights, channels, groups),
                                   groups, stride, dilation);
  check_output(grad, g);
  return g;
}

Geometry check_grad_weight(const at::Tensor& grad, const at::Tensor& x, c10::IntArrayRef shapes,
                           c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  TORCH_CHECK(x.dim() == 4, "pyconv2d_grad_weight: x must be 4-d, got ", x.sizes());
  check_alike(grad, x);
  const Geometry g = make_geometry(x.size(0), x.size(1), x.size(2), x.size(3), shapes, groups, stride, dilation);
  check_output(grad, g);
  return g;
}

ShapeClass shape_class(const Geometry& g) {
  std::string levels;
  for (const Level& level : g.levels)
    levels += (levels.empty() ? "" : ",") + std::to_string(std::max(level.height, level.width));
  return {g.in_channels, g.out_channels, g.levels[0].groups, g.stride, g.batch * g.out_height * g.out_width, levels};
}

std::string refusal(const Geometry& g, at::ScalarType dtype, bool backward) {
  if (dtype != at::kHalf && dtype != at::kBFloat16) return "the tiled kernel of pyconv2d takes float16 and bfloat16";
  if (g.in_channels % 8 || g.out_channels % 8)
    return "the tiled kernel of pyconv2d takes multiples of 8 channels, got " + std::to_string(g.in_channels) +
           " and " + std::to_string(g.out_channels);
  if (g.levels.size() > kMaxLevels) return "the tiled kernel of pyconv2d takes up to 8 levels";
  if (backward && g.stride > 2)
    return "the tiled kernel of pyconv2d has a gradient of the input at strides 1 and 2, got " +
           std::to_string(g.stride);
  for (const Level& level : g.levels)
    if (g.dilation * (std::max(level.height, level.width) / 2) > 64)
      return "the tiled kernel of pyconv2d reads up to 64 pixels around a pixel";
  return {};
}

bool meet(const Level& level, int64_t in_channels, int64_t input, int64_t inputs, int64_t output, int64_t outputs) {
  const int64_t first = std::max(output, level.first) - level.first;
  const int64_t last = std::min(output + outputs, level.first + level.outputs) - level.first - 1;
  if (first > last) return false;
  const int64_t group_in = in_channels / level.groups, group_out = level.outputs / level.groups;
  return input < (last / group_out + 1) * group_in && input + inputs > first / group_out * group_in;
}

std::vector<int> make_program(const Geometry& g, bool backward) {
  const int columns = static_cast<int>(backward ? g.in_channels : g.out_channels);
  const int channels = static_cast<int>(backward ? g.out_channels : g.in_channels);
  const int phase_side = phase_step(g, backward), apart = static_cast<int>(g.dilation);
  constexpr int kColumns = kTileColumns * kTilesOfBlock;
  const int blocks_of_phase = (columns + kColumns - 1) / kColumns;
  Program head{};
  std::vector<Block> blocks;
  std::vector<Step> steps;
  std::vector<Offset> offsets;
  std::vector<Fragment> fragments;
  for (int number = 0; number < phase_side * phase_side * blocks_of_phase; ++number) {
    const int phase = number / blocks_of_phase, column = number % blocks_of_phase * kColumns;
    blocks.push_back({static_cast<int>(steps.size()), 0});
    for (int channel = 0; channel < channels; channel += kStepChannels) {
      const auto masks = masks_of(g, column, channel, backward, phase);
      if (masks.empty()) continue;
      steps.push_back({channel, static_cast<int>(offsets.size()), static_cast<int>(masks.size()),
                       static_cast<int>(fragments.size())});
      ++blocks.back().steps;
      for (const auto& [tap, mask] : masks) {
        const int dy = (phase / phase_side + tap.first * apart) / phase_side;
        const int dx = (phase % phase_side + tap.second * apart) / phase_side;
        head.reach_h = std::max(head.reach_h, std::abs(dy)), head.reach_w = std::max(head.reach_w, std::abs(dx));
        offsets.push_back({dy, dx, mask, 0});
        for (int tile = 0; tile < kTilesOfBlock; ++tile)
          if (mask >> tile & 1) fragments.push_back({column + tile * kTileColumns, channel, tap.first, tap.second});
      }
    }
  }
  head.blocks = blocks_of_phase, head.fragments = static_cast<int>(fragments.size());
  std::vector<int> numbers(sizeof(Program) / sizeof(int));
  head.block_at = append(numbers, blocks), head.step_at = append(numbers, steps);
  head.offset_at = append(numbers, offsets), head.fragment_at = append(numbers, fragments);
  std::memcpy(numbers.data(), &head, sizeof(Program));
  return numbers;
}

}  // namespace icconv_mm::pyconv
