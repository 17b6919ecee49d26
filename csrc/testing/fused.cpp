// See fused.h. The same patches, fragments and offsets as on the GPU; a loop takes the place of a warp's product.
#include "../inception_conv/fused/fused.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "fused.h"

namespace icconv_mm::testing {
namespace {

using namespace fused;

struct Work {
  const Geometry& g;
  Patch patch;
  std::vector<float> pixels, fragments;  // of a tile [slot][channel]; of all filters
  Range run;
  std::vector<int64_t> dilations_h, dilations_w;

  // 16 input channels of a slot times a fragment, added to eight sums.
  void multiply(int slot, int tile, int tap, float (&sums)[kColumns]) const {
    for (int step = 0; step < kSteps; ++step) {
      const float* fragment = &fragments[size_t(fragment_of(tile, tap, step)) * kFragmentElements];
      for (int i = 0; i < kFragmentElements; ++i) {
        const FragmentPlace place = fragment_place(i);
        sums[place.column] += pixels[size_t(slot) * kChannels + step * 16 + place.channel] * fragment[i];
      }
    }
  }
  void add_long(int pixel, int tile, float (&sums)[kColumns]) const {
    for (int tap = 0; tap < int(kTaps); ++tap) {
      const int offset = tap_offset(patch, tap, static_cast<int>(run.dilation_h), static_cast<int>(run.dilation_w));
      multiply(patch.slot_of(pixel) + offset, tile, tap, sums);
    }
  }
  // Products of all slots with three taps first, then their shifted additions.
  void add_short(int tile, std::vector<float>& sums) const {
    std::vector<float> products(size_t(kRowTaps) * patch.slots * kColumns);
    for (int row = 0; row < 3; ++row) {
      for (int tap = 0; tap < kRowTaps; ++tap)
        for (int slot = 0; slot < patch.slots; ++slot) {
          float of[kColumns] = {};
          multiply(slot, tile, row * kRowTaps + tap, of);
          std::copy(of, of + kColumns, &products[(size_t(tap) * patch.slots + slot) * kColumns]);
        }
      for (int tap = 0; tap < kRowTaps; ++tap)
        for (int pixel = 0; pixel < kTileSide * kTileSide; ++pixel)
          for (int column = 0; column < kColumns; ++column) {
            const int channel = tile * kColumns + column;
            const int offset = tap_offset(patch, row * kRowTaps + tap, static_cast<int>(dilations_h[channel]),
                                          static_cast<int>(dilations_w[channel]));
            sums[pixel * kColumns + column] +=
                products[(size_t(tap) * patch.slots + patch.slot_of(pixel) + offset) * kColumns + column];
          }
    }
  }
};

template <typename T>
at::Tensor execute(Work& work, const at::Tensor& x, const at::Tensor& weight) {
  const Geometry& g = work.g;
  std::vector<T> packed(size_t(kFragments) * kFragmentElements);
  const PackTiles<T> pass{weight.const_data_ptr<T>(),
                          {weight.stride(0), weight.stride(1), weight.stride(2), weight.stride(3)},
                          packed.data()};
  for (size_t i = 0; i < packed.size(); ++i) pass(static_cast<uint32_t>(i));
  work.fragments.assign(packed.begin(), packed.end());
  at::Tensor out = at::zeros({g.batch, kChannels, g.out_height, g.out_width}, x.options().dtype(at::kFloat));
  auto to = out.accessor<float, 4>();
  const auto from = x.accessor<T, 4>();
  for (int index = 0; index < g.batch * work.patch.tiles(); ++index) {
    const Tile tile = locate_tile(work.patch, index);
    work.pixels.assign(size_t(work.patch.slots) * kChannels, 0.f);
    for (int slot = 0; slot < work.patch.slots; ++slot) {
      const int pixel = source_pixel(work.patch, tile, slot, static_cast<int>(g.height), static_cast<int>(g.width));
      for (int c = 0; pixel >= 0 && c < kChannels; ++c)
        work.pixels[size_t(slot) * kChannels + c] = from[tile.image][c][pixel / g.width][pixel % g.width];
    }
    for (int group = 0; group < kTiles; ++group) {
      std::vector<float> sums(kTileSide * kTileSide * kColumns);
      const bool is_long = group * kColumns >= work.run.begin && group * kColumns < work.run.end;
      if (!is_long) work.add_short(group, sums);
      for (int pixel = 0; pixel < kTileSide * kTileSide; ++pixel) {
        const int64_t y = tile.y + pixel / kTileSide, column = tile.x + pixel % kTileSide;
        if (y >= g.out_height || column >= g.out_width) continue;
        float of[kColumns] = {};
        std::copy_n(&sums[pixel * kColumns], kColumns, of);
        if (is_long) work.add_long(pixel, group, of);
        for (int c = 0; c < kColumns; ++c) to[tile.image][group * kColumns + c][y][column] = of[c];
      }
    }
  }
  return out;
}

at::Tensor multiply_by_warps(const Geometry& g, const at::Tensor& x, const at::Tensor& weight, Pattern pattern) {
  Work work{g,
            fused_patch(static_cast<int>(g.out_height), static_cast<int>(g.out_width), pattern),
            {},
            {},
            longest_run(pattern, g.groups),
            {},
            {}};
  for (size_t i = 0; i < pattern.size(); i += 3) {
    work.dilations_h.insert(work.dilations_h.end(), pattern[i], pattern[i + 1]);
    work.dilations_w.insert(work.dilations_w.end(), pattern[i], pattern[i + 2]);
  }
  at::Tensor out;
  AT_DISPATCH_REDUCED_FLOATING_TYPES(x.scalar_type(), "inception_conv2d",
                                     [&] { out = execute<scalar_t>(work, x, weight); });
  return out;
}

}  // namespace

at::Tensor forward_fused(const Geometry& g, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         Pattern pattern, bool relu, bool wgmma) {
  const bool fits = g.in_channels == kChannels && g.out_channels == kChannels && g.groups == 1 && g.stride == 1;
  const bool near = std::max(max_dilation(pattern, 0), max_dilation(pattern, 1)) <= kMaxDilation;
  TORCH_CHECK(fits && near && (x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16),
              "the fused kernels take 64 channels, stride 1, dilations up to ", kMaxDilation,
              ", float16 and bfloat16, got ", g.in_channels, " -> ", g.out_channels, " channels, stride ", g.stride,
              " and ", x.scalar_type());
  at::Tensor out = wgmma ? multiply_by_warpgroups(g, x, weight, pattern) : multiply_by_warps(g, x, weight, pattern);
  if (bias.defined()) out.add_(bias.view({-1, 1, 1}));
  if (relu) out.relu_();
  return out.to(x.options(), false, false, x.suggest_memory_format());
}

}  // namespace icconv_mm::testing
