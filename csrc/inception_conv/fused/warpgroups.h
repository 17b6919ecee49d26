// How a warp of Hopper's warpgroups (wgmma) takes part in the fused kernel: pixels come to registers by ldmatrix, as
// for the smaller products, and filters stay in shared memory, where a descriptor names them. `Machine` runs it: a
// thread of the GPU, which holds its lane's numbers, or the CPU, which holds those of all 32.
#pragma once

#include <type_traits>

#include "fused.h"

namespace icconv_mm::inception_conv::fused {

constexpr int kFragmentBytes = 2 * kFragmentElements, kCoreBytes = kFragmentBytes / 2;
constexpr int kFilterBytes = kFragments * kFragmentBytes;
constexpr int kRowsOfWarp = 16, kRowsOfGroup = 4 * kRowsOfWarp, kWarpsOfTile = 8;
constexpr int kPixelsOfWarp = kTileSide * kTileSide / kWarpsOfTile, kProductsOfWarp = kPixelsOfWarp / kRowsOfWarp;

struct Memory {
  uint32_t filters, pixels;  // addresses in shared memory: fragments of core matrices, slots of kPixelBytes
};

// Describes 16 channels of 8, 16, ... columns (PTX ISA, "Matrix descriptor format", K-major without swizzling): a core
// matrix is 8 columns of 16 bytes, one after the other; the second half of the channels lies kCoreBytes further, and
// the next eight columns `column_bytes`. Bits in units of 16 bytes: address 0-13, bytes to the second half 16-29, to
// the next columns 32-45. Zeros at 62-63: no swizzling.
ICCONV_MM_BOTH inline uint64_t describe(uint32_t address, uint32_t column_bytes) {
  const auto field = [](uint32_t bytes) { return uint64_t(bytes >> 4 & 0x3fff); };
  return field(address) | field(kCoreBytes) << 16 | field(column_bytes) << 32;
}

// Where one of a lane's four sums of 16 rows and eight columns belongs; the sum after an even one has the next column.
struct SumPlace {
  int row, column;
};
ICCONV_MM_BOTH inline SumPlace sum_place(int lane, int number) {
  return {lane / 4 + number / 2 * 8, lane % 4 * 2 + number % 2};
}

// Where a lane points ldmatrix to: rows of 16 bytes, of channels 0-7 for half of the lanes and 8-15 for the others.
ICCONV_MM_BOTH inline uint32_t half_row(uint32_t pixel, int lane, int step) {
  return pixel + step * 32 + lane / 16 * 16;
}

// A product of kWide x 8 columns for the longest run: columns of other runs may be among them and are not kept.
// keep(pixel, channel, sum, sum of the next channel)
template <int kWide, typename Machine, typename Keep>
ICCONV_MM_BOTH_INLINE void multiply_wide(const Machine& machine, const Memory& memory, const Patch& patch,
                                         const LongRun& run, int warp, const Keep& keep) {
  const int first_tile = run.first_tile < kTiles - kWide ? run.first_tile : kTiles - kWide;
  typename Machine::template Sums<kWide> sums[kProductsOfWarp] = {};
#ifdef __CUDACC__
#pragma unroll 1
#endif
  for (int tap = 0; tap < int(kTaps); ++tap) {
    const int offset = tap_offset(patch, tap, run.dilation_h, run.dilation_w);
    typename Machine::Pixels of[kProductsOfWarp][kSteps];
    ICCONV_MM_UNROLL
    for (int m = 0; m < kProductsOfWarp; ++m) {
      ICCONV_MM_UNROLL
      for (int step = 0; step < kSteps; ++step)
        machine.load(of[m][step], [&](int lane) {
          const int slot = patch.slot_of(warp * kPixelsOfWarp + m * kRowsOfWarp + lane % 16) + offset;
          return half_row(memory.pixels + slot * kPixelBytes, lane, step);
        });
    }
    machine.begin();
    ICCONV_MM_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      const uint32_t filters = memory.filters + fragment_of(first_tile, tap, step) * kFragmentBytes;
      ICCONV_MM_UNROLL
      for (int m = 0; m < kProductsOfWarp; ++m)
        machine.multiply(sums[m], of[m][step], describe(filters, int(kTaps) * kSteps * kFragmentBytes));
    }
    machine.end();
    ICCONV_MM_UNROLL
    for (int m = 0; m < kProductsOfWarp; ++m) machine.settle(sums[m]);
  }
  ICCONV_MM_UNROLL
  for (int m = 0; m < kProductsOfWarp; ++m)
    machine.each(sums[m], [&](int tile, SumPlace place, float sum, float next) {
      tile += first_tile;
      if (tile >= run.first_tile && tile < run.end_tile)
        keep(warp * kPixelsOfWarp + m * kRowsOfWarp + place.row, tile * kColumns + place.column, sum, next);
    });
}

template <typename Machine, typename Keep>
ICCONV_MM_BOTH_INLINE void multiply_run(const Machine& machine, const Memory& memory, const Patch& patch,
                                        const LongRun& run, int warp, const Keep& keep) {
  const int tiles = run.end_tile - run.first_tile;
  if (tiles > 6)
    multiply_wide<8>(machine, memory, patch, run, warp, keep);
  else if (tiles > 3)
    multiply_wide<6>(machine, memory, patch, run, warp, keep);
  else if (tiles > 0)
    multiply_wide<3>(machine, memory, patch, run, warp, keep);
}

// Eight channels and the three taps of a row, at all slots, a multiple of kRowsOfGroup so that the four warps of a
// group go the same way. keep(tap, slot, column, sum, sum of the next column)
template <typename Machine, typename Keep>
ICCONV_MM_BOTH_INLINE void multiply_row(const Machine& machine, const Memory& memory, int slots, int tile, int row,
                                        int warp, const Keep& keep) {
#ifdef __CUDACC__
#pragma unroll 1
#endif
  for (int first = warp * kRowsOfWarp; first < slots; first += kWarpsOfTile * kRowsOfWarp) {
    typename Machine::Pixels of[kSteps];
    ICCONV_MM_UNROLL
    for (int step = 0; step < kSteps; ++step)
      machine.load(of[step],
                   [&](int lane) { return half_row(memory.pixels + (first + lane % 16) * kPixelBytes, lane, step); });
    typename Machine::template Sums<kRowTaps> sums = {};
    machine.begin();
    ICCONV_MM_UNROLL
    for (int step = 0; step < kSteps; ++step)
      machine.multiply(
          sums, of[step],
          describe(memory.filters + fragment_of(tile, row * kRowTaps, step) * kFragmentBytes, kSteps * kFragmentBytes));
    machine.end();
    machine.settle(sums);
    machine.each(sums, [&](int tap, SumPlace place, float sum, float next) {
      keep(tap, first + place.row, place.column, sum, next);
    });
  }
}

}  // namespace icconv_mm::inception_conv::fused
