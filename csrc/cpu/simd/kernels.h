// What is compiled once per instruction set, and how the rest of the CPU code calls it.
#pragma once

#include <cstdint>
#include <utility>

// What one instruction set compiles must not be called from another's.
#define ICCONV_MM_INLINE inline __attribute__((always_inline))

namespace icconv_mm::cpu {

constexpr int64_t kBlock = 64;  // channels of a block of packed input: one pixel of it is contiguous
constexpr int kMaxRows = 6;     // output channels of a dot tile
constexpr int kMaxVectors = 4;  // vectors of output channels of an outer-product tile
constexpr int kMaxPixels = 14;  // of any tile
constexpr int kMaxLanes = 16;
constexpr int kMaxGroupRows = 4;  // output channels of each group of a weight tile for small groups
constexpr int kMaxTaps = 9;       // taps of it

// Rows of taps that sliding tiles are compiled for: so many, so many pixels apart, the middle one at the output pixel.
struct Slide {
  int taps, dilation;
};
constexpr Slide kSlides[] = {{3, 1}, {3, 2}, {3, 3}, {3, 4}, {5, 1}, {7, 1}, {9, 1}};
constexpr int kSlideCount = sizeof(kSlides) / sizeof(kSlides[0]);

// Something that every pixel of a tile reads: `count` vectors (dot) or channels (outer) from `offset` floats on.
struct Term {
  int64_t offset, count;
};

enum StoreFlags : int { kAccumulate = 1, kBias = 2, kRelu = 4, kRaw = 8 };

// Where a tile puts its results. Strides are in floats; the output channels of a tile follow each other by `channel`.
// Of a dot tile pixels or channels are neighbours: one of the two strides is 1.
// kRaw: the accumulators as they are, [rows][pixels][lanes] at `out`, for channels that lie elsewhere.
struct Store {
  float* out;
  int64_t pixel, channel;
  const float* bias;
  int64_t channels;  // written by an outer-product tile, which may have more
  int flags;
};

using Tile = void (*)(const float* x, const Term* begin, const Term* end, const float* weight, const Store& store);

// The weight gradient of `rows` output channels and one tap: a sum over a rectangle of pixels.
struct Rectangle {
  const float *x, *grad;        // packed, at the first pixel
  const int64_t* grad_channel;  // [rows] offsets into a packed pixel of `grad`
  int64_t height, width;
  int64_t x_row, x_pixel, grad_row;
};
using WeightTile = void (*)(const Rectangle& area, float* sums);  // sums [rows][vectors][lanes], added to

// The weight gradient where a vector of input channels holds several groups: one row of pixels, `rows` output channels
// of each group, some taps of one row of the kernel.
struct Line {
  const float* x;       // packed, at the first pixel
  const int64_t* taps;  // offsets from x
  const float* grad;    // [width][rows][lanes]: in each lane the gradient of an output of that lane's group
  int64_t width, x_pixel;
};
using GroupTile = void (*)(const Line& line, float* sums);  // sums [taps][rows][lanes], added to

// What tiles of so many rows, or vectors, take per output channel, as a multiple of the ideal; measured. With wide
// registers one row is that of a sliding tile; where nothing slides, with a stride for one, it takes 1.4.
struct Costs {
  double dot[kMaxRows + 1], outer[kMaxVectors + 1];
};
constexpr Costs kNarrowCosts{{0, 1.6, 1.25, 1.15, 1.15, 9, 9}, {0, 1.3, 1.0, 1.0, 1.05}};     // of 16 registers
constexpr Costs kWideCosts{{0, 1.1, 1.08, 1.06, 1.01, 1.01, 1.07}, {0, 1.3, 1.0, 1.0, 1.0}};  // of 32

struct NormKernels;  // norm.h

struct Kernels {
  const char* name;
  int lanes;
  Costs costs;
  int pixels[kMaxRows + 1];                   // the most of a tile with so many rows, or vectors
  Tile dot[2][kMaxRows + 1][kMaxPixels + 1];  // by stride - 1, rows, pixels; null where there is none
  Tile outer[2][kMaxVectors + 1][kMaxPixels + 1];
  Tile sliding[kSlideCount][kMaxPixels + 1];                // dot tiles of one row and stride 1; by slide, pixels
  int slide_pixels[kSlideCount];                            // the most of one, 0 where there is none
  WeightTile weight[kMaxRows + 1][kMaxVectors + 1];         // by rows, vectors
  GroupTile group_weight[kMaxGroupRows + 1][kMaxTaps + 1];  // by rows, taps; null where there is none
  // target[x * kBlock + c] = source[c * stride + x] for x < pixels, c < channels
  void (*transpose)(const float* source, int64_t stride, float* target, int64_t pixels, int64_t channels);
  // Sums of groups of `width` lanes: [count][lanes] -> [lanes / width][count]; a width of 1, 2, 4, ... below lanes
  void (*sum_lanes)(const float* accumulators, int64_t count, int64_t width, float* sums);
  // out = the sum of four pixels times their shares, of `count` channels
  void (*blend)(const float* const* corners, const float* shares, int64_t count, float* out);
  // dots[i] = the sum over `count` channels of grad times corner i
  void (*dots)(const float* grad, const float* const* corners, int64_t count, float* dots);
  // out += grad * share
  void (*add_times)(const float* grad, float share, int64_t count, float* out);
  const NormKernels* norms;  // null for pairs of bfloat16
};

// Each must only be called where the processor has these instructions.
const Kernels& portable_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels* avx512_bf16_kernels();  // null where the compiler did not know these instructions
#endif

// The best kernels of this processor; ICCONV_MM_CPU = avx512_bf16, avx512, avx2 or portable asks for others that it can
// run.
const Kernels& kernels();

// Kernels whose elements are pairs of bfloat16 in the place of floats, or null where there are none. They have
// no weight tiles, which multiply pixels.
const Kernels* pair_kernels();

}  // namespace icconv_mm::cpu
