// What the fused kernel for 64 channels computes, apart from threads: the shape of its tiles, the order of its filters.
#pragma once

#include "../../common/common.h"
#include "../../common/host_device.h"
#include "../../common/patch.h"
#include "../geometry.h"

namespace icconv_mm::inception_conv::fused {

constexpr int kChannels = 64, kTileSide = 16, kMaxDilation = 16;
constexpr int kColumns = 8, kTiles = kChannels / kColumns, kSteps = kChannels / 16, kRowTaps = 3;
static_assert(kColumns == kRangeChannels);
constexpr int kPixelBytes = 2 * kChannels + 16;  // an odd number of 16-byte vectors: eight pixels, eight banks
constexpr int kFragments = kTiles * kTaps * kSteps, kFragmentElements = 4 * 32;

// A tile of 16 x 16 pixels with the border of the largest dilation.
inline Patch fused_patch(int height, int width, Pattern pattern) {
  const int halo_h = static_cast<int>(max_dilation(pattern, 0)), halo_w = static_cast<int>(max_dilation(pattern, 1));
  return try_patch(height, width, kTileSide, kTileSide, 1, halo_h, halo_h, halo_w, halo_w);
}

// Tiles of eight columns that lie within the longest run, and its dilation; the other tiles are added tap by tap.
struct LongRun {
  int first_tile, end_tile, dilation_h, dilation_w;
};
inline LongRun long_run(Pattern pattern) {
  const Range run = longest_run(pattern, 1);
  return {static_cast<int>(run.begin / kColumns), static_cast<int>(run.end / kColumns),
          static_cast<int>(run.dilation_h), static_cast<int>(run.dilation_w)};
}

// Slots from a pixel of the tile to what a tap of it reads.
ICCONV_MM_BOTH inline int tap_offset(const Patch& patch, int tap, int dilation_h, int dilation_w) {
  return patch.offset(patch.before_h + (tap / 3 - 1) * dilation_h, patch.before_w + (tap % 3 - 1) * dilation_w);
}

// The first of the numbers of a fragment; they belong to the tap's 16 x 8 filters as `fragment_place` says.
ICCONV_MM_BOTH inline int fragment_of(int tile, int tap, int step) { return (tile * int(kTaps) + tap) * kSteps + step; }

// The place of a product of a short run's column and tap, at a slot.
ICCONV_MM_BOTH inline int product_index(int slots, int tap, int slot, int column) {
  return (tap * slots + slot) * kColumns + column;
}

struct FragmentPlace {
  int column, channel;  // output channel of the tile, input channel of the step
};
ICCONV_MM_BOTH inline FragmentPlace fragment_place(int number) {
  const int element = number % 4, lane = number / 4;
  return {lane / 4, lane % 4 * 2 + element % 2 + element / 2 * 8};
}

// The same for warpgroups: two core matrices, of channels 0-7 and 8-15, each eight columns of eight channels.
ICCONV_MM_BOTH inline FragmentPlace core_place(int number) {
  return {number / 8 % kColumns, number / (8 * kColumns) * 8 + number % 8};
}

// Filters [64, 64, 3, 3] as fragments: [tile][tap][step][lane][4], or core matrices in place of the last two.
template <typename T, bool kCores = false>
struct PackTiles {
  const T* weight;
  Strides strides;
  T* out;

  ICCONV_MM_BOTH void operator()(uint32_t index) const {
    const int fragment = index / kFragmentElements, step = fragment % kSteps, tap = fragment / kSteps % int(kTaps);
    const int number = index % kFragmentElements;
    const FragmentPlace place = kCores ? core_place(number) : fragment_place(number);
    const int column = fragment / kSteps / int(kTaps) * kColumns + place.column, channel = step * 16 + place.channel;
    out[index] =
        weight[column * strides.image + channel * strides.channel + tap / 3 * strides.row + tap % 3 * strides.column];
  }
};

}  // namespace icconv_mm::inception_conv::fused
