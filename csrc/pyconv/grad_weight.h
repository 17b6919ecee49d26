// The gradient of the weight by the tiled kernel of the pyramidal convolution: rows are 16 output channels, columns 16
// input channels, and the reduction goes over pixels. A job is one such pair of channels and up to 28 of the taps at
// which filters lead from one to the other; its warps take the taps in turn. `Machine` runs it: a thread of the GPU,
// which holds its lane's numbers, or the CPU, which holds those of all 32.
#pragma once

#include "../common/patch.h"
#include "levels.h"

#include <cstdint>
#include <vector>

namespace icconv_mm::pyconv {

constexpr int kRowChannels = 16, kColumnChannels = 16, kPixelsOfStep = 16;
constexpr int kWarps = 4, kTapsOfWarp = 7, kTapsOfJob = kWarps * kTapsOfWarp;  // sums stay in registers
constexpr int kPixelsOfTile = 256;
constexpr int kHalfBytes = 16,
              kPixelPitch = 3 * kHalfBytes;  // of 16 channels in shared memory; an odd number of vectors

struct alignas(16) Job {
  int row, column, first_tap, taps;  // row, column: first channels
};
struct Tap {
  int dy, dx;  // in taps from the centre
};
struct WeightProgram {  // the head of the numbers; the tables follow
  int jobs, reach_h, reach_w, job_at, tap_at;
};
std::vector<int> make_weight_program(const Geometry& g);

// A level among the filters of all levels, one level after the other.
struct LevelPlace {
  int first, outputs, group_in, group_out, height, width;
  int64_t at;
};
struct Places {
  LevelPlace levels[kMaxLevels];
  int count;
  int64_t all;  // filters
};
Places places_of(const Geometry& g);

// The filters of one output channel; none of a channel that there is not.
struct FilterRow {
  int64_t at;
  int input, inputs, height, width;

  // Which one leads from an input channel at a tap, among the filters of all levels; -1 for none.
  ICCONV_MM_BOTH int64_t place(int channel, const Tap& tap) const {
    const int i = channel - input, y = tap.dy + height / 2, x = tap.dx + width / 2;
    if (i < 0 || i >= inputs || y < 0 || y >= height || x < 0 || x >= width) return -1;
    return at + (int64_t(i) * height + y) * width + x;
  }
};

ICCONV_MM_BOTH inline FilterRow find_row(const Places& places, int output) {
  for (int l = 0; l < places.count; ++l) {
    const LevelPlace& level = places.levels[l];
    const int o = output - level.first;
    if (o < 0 || o >= level.outputs) continue;
    return {level.at + int64_t(o) * level.group_in * level.height * level.width, o / level.group_out * level.group_in,
            level.group_in, level.height, level.width};
  }
  return {0, 0, 0, 1, 1};
}

// How many taps a warp has, and which.
ICCONV_MM_BOTH inline int taps_of_warp(const Job& job, int warp) { return (job.taps - warp + kWarps - 1) / kWarps; }
ICCONV_MM_BOTH inline int tap_of_warp(const Job& job, int warp, int number) {
  return job.first_tap + number * kWarps + warp;
}

// Bytes from a tile pixel's place in the patch to what it reads at a tap.
ICCONV_MM_BOTH inline int tap_bytes(const Patch& patch, const Tap& tap, int dilation) {
  return kPixelPitch * patch.offset(patch.before_h + tap.dy * dilation, patch.before_w + tap.dx * dilation);
}

// Bytes from the patch's start to a tile pixel's place. Pixels past the tile have the last one's, and no gradient.
ICCONV_MM_BOTH inline int pixel_bytes(const Patch& patch, int pixel) {
  const int area = patch.tile_h * patch.tile_w;
  return kPixelPitch * patch.slot_of(pixel < area ? pixel : area - 1);
}

struct WeightMemory {
  uint32_t pixels, grads;  // addresses in shared memory: the patch's slots, the tile's pixels
};

// Where one of a lane's four sums of 16 rows and eight columns belongs.
struct SumPlace {
  int row, column;
};
ICCONV_MM_BOTH inline SumPlace sum_place(int lane, int number) {
  return {lane / 4 + number / 2 * 8, lane % 4 * 2 + number % 2};
}

// Adds the products of a tile's pixels: transposed gradients as rows, pixels as they lie as columns. `slots`:
// pixel_bytes of every pixel; `offsets`: tap_bytes of the warp's taps.
template <typename Machine>
ICCONV_MM_BOTH_INLINE void multiply_pixels(const Machine& machine, const WeightMemory& memory, const int* slots,
                                           int pixels, const int (&offsets)[kTapsOfWarp], int taps,
                                           typename Machine::Sums (&sums)[kTapsOfWarp]) {
#ifdef __CUDACC__
#pragma unroll 1
#endif
  for (int first = 0; first < pixels; first += kPixelsOfStep) {
    typename Machine::Addresses grads_at, pixels_at;
    machine.point(grads_at, [&](int lane) {  // matrices: channels 0-7 and 8-15 of pixels 0-7, then of pixels 8-15
      return memory.grads + (first + lane % 8 + lane / 16 * 8) * kPixelPitch + lane / 8 % 2 * kHalfBytes;
    });
    machine.point(pixels_at, [&](int lane) {  // matrices: pixels 0-7 and 8-15 of channels 0-7, then of channels 8-15
      return memory.pixels + slots[first + lane % 16] + lane / 16 * kHalfBytes;
    });
    typename Machine::Words grads;
    machine.load_transposed(grads, grads_at, 0);
    ICCONV_MM_UNROLL
    for (int tap = 0; tap < kTapsOfWarp; ++tap) {
      if (tap >= taps) continue;
      typename Machine::Words read;
      machine.load_transposed(read, pixels_at, offsets[tap]);
      machine.multiply(sums[tap], grads, read);
    }
  }
}

// The second pass: sums of the slabs, in their order, for one level.
template <typename T>
struct AddSlabs {
  const float* partial;  // [slabs][all], from the level's first filter
  T* out;
  int slabs;
  int64_t all;

  ICCONV_MM_BOTH void operator()(int64_t index) const {
    float sum = 0;
    for (int slab = 0; slab < slabs; ++slab) sum += partial[slab * all + index];
    out[index] = static_cast<T>(sum);
  }
};

}  // namespace icconv_mm::pyconv
