// The geometry of one call of the pyramidal convolution.
#pragma once

#include "../../common/common.h"
#include "../engine/plan.h"

namespace icconv_mm::cpu {

struct Level {
  int64_t outputs, height, width, groups;  // output channels, kernel
  int64_t first;                           // its first output channel among those of all levels
  Channels channels;                       // of its input

  std::vector<Tap> taps(int64_t dilation) const { return taps_of(height, width, dilation, dilation); }
};

struct Geometry {
  std::vector<Level> levels;
  int64_t in_channels = 0, out_channels = 0, reach_w = 0;

  bool even() const {  // whether channels of every group come in pairs
    return std::all_of(levels.begin(), levels.end(), [](const Level& level) { return level.channels.inside % 2 == 0; });
  }
  void pair_up() {
    for (Level& level : levels) level.channels = Channels::of(level.groups, level.channels.inside, true);
  }
  void add(int64_t outputs, int64_t inside, int64_t height, int64_t width, int64_t groups, int64_t dilation) {
    TORCH_CHECK(
        groups >= 1 && outputs % groups == 0 && channels_of(groups, inside) == in_channels && height % 2 && width % 2,
        "pyconv2d: level ", levels.size(), " does not fit an input of ", in_channels, " channels");
    levels.push_back({outputs, height, width, groups, out_channels, Channels::of(groups, inside)});
    out_channels += outputs;
    reach_w = std::max(reach_w, width / 2 * dilation);
  }
  // One packed input serves the levels whose channels keep their numbers; each other level needs its own.
  std::vector<std::vector<size_t>> by_layout() const {
    std::vector<std::vector<size_t>> sets;
    size_t plain = 0;  // number of the set, from 1 on
    for (size_t i = 0; i < levels.size(); ++i) {
      if (levels[i].channels.plain() && plain) {
        sets[plain - 1].push_back(i);
        continue;
      }
      sets.push_back({i});
      if (levels[i].channels.plain()) plain = sets.size();
    }
    return sets;
  }
};

inline void check_steps(int64_t stride, int64_t dilation) {
  TORCH_CHECK(std::min(stride, dilation) >= 1 && std::max(stride, dilation) <= kMaxStep,
              "pyconv2d: stride and dilation must be in 1..", kMaxStep, ", got ", stride, " and ", dilation);
}

inline Geometry make_geometry(int64_t in_channels, at::TensorList weights, c10::IntArrayRef groups, int64_t stride,
                              int64_t dilation) {
  check_steps(stride, dilation);
  TORCH_CHECK(!weights.empty() && weights.size() == groups.size(), "pyconv2d: expected one number of groups per level");
  Geometry g;
  g.in_channels = in_channels;
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto size = weights[i].sizes();
    TORCH_CHECK(size.size() == 4, "pyconv2d: the weight of level ", i, " must be 4-d, got ", size);
    g.add(size[0], size[1], size[2], size[3], groups[i], dilation);
  }
  return g;
}

}  // namespace icconv_mm::cpu
