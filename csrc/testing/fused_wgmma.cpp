// The fused kernel with warpgroup products on the CPU, for tests: the code of ../inception_conv/fused/warpgroups.h as
// the GPU compiles it, run by warps whose loads and products are those of the instructions' definitions (PTX ISA:
// ldmatrix, wgmma.mma_async, "Matrix descriptor format"), byte by byte in a copy of the shared memory.
#include "../inception_conv/fused/warpgroups.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <vector>

#include "fused.h"

namespace icconv_mm::testing {
namespace {

using namespace fused;

constexpr int kLanes = 32;

// A warp's part of every instruction: 16 of the 64 rows of a product.
template <typename T>
struct Warp {
  const char* memory;

  struct Pixels {
    uint32_t r[kLanes][4];
  };
  template <int kWide>
  struct Sums {
    float of[kLanes][kWide][4];
  };

  T element(uint32_t address) const {
    T value;
    std::memcpy(&value, memory + address, sizeof value);
    return value;
  }
  // ldmatrix.x4: lanes 8 i to 8 i + 7 point to the rows of matrix i; a lane gets two elements of row lane / 4 of each
  template <typename Address>
  void load(Pixels& of, const Address& address) const {
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 4; ++i) std::memcpy(&of.r[lane][i], memory + address(8 * i + lane / 4) + lane % 4 * 4, 4);
  }
  void begin() const {}
  void end() const {}
  template <int kWide>
  void settle(Sums<kWide>&) const {}
  template <int kWide>
  void multiply(Sums<kWide>& sums, const Pixels& of, uint64_t filters) const {
    float a[kRowsOfWarp][16], b[kWide * kColumns][16];
    for (int lane = 0; lane < kLanes; ++lane)  // register i: rows 8 further where i is odd, channels where above 1
      for (int i = 0; i < 4; ++i) {
        T pair[2];
        std::memcpy(pair, &of.r[lane][i], sizeof pair);
        for (int k = 0; k < 2; ++k) a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8 + k] = pair[k];
      }
    const uint32_t start = (filters & 0x3fff) * 16, leading = (filters >> 16 & 0x3fff) * 16,
                   stride = (filters >> 32 & 0x3fff) * 16;
    TORCH_INTERNAL_ASSERT(filters >> 46 == 0, "a descriptor with a base offset or swizzling");
    for (int n = 0; n < kWide * kColumns; ++n)
      for (int k = 0; k < 16; ++k) b[n][k] = element(start + n / 8 * stride + n % 8 * 16 + k / 8 * leading + k % 8 * 2);
    for (int lane = 0; lane < kLanes; ++lane)  // sums 4 j to 4 j + 3: columns 8 j to 8 j + 7
      for (int i = 0; i < 4 * kWide; ++i)
        for (int k = 0; k < 16; ++k)
          sums.of[lane][i / 4][i % 4] += a[lane / 4 + i % 4 / 2 * 8][k] * b[i / 4 * 8 + lane % 4 * 2 + i % 2][k];
  }
  template <int kWide, typename Use>
  void each(const Sums<kWide>& sums, const Use& use) const {
    for (int lane = 0; lane < kLanes; ++lane)
      for (int j = 0; j < kWide; ++j)
        for (int i = 0; i < 4; i += 2) use(j, sum_place(lane, i), sums.of[lane][j][i], sums.of[lane][j][i + 1]);
  }
};

// All sums of a tile, [pixel][channel], out of its shared memory.
template <typename T>
std::vector<float> multiply_tile(const std::vector<char>& memory, const Patch& patch, int slots, Pattern pattern) {
  const LongRun run = long_run(pattern);
  const Memory at{0, kFilterBytes};
  const Warp<T> machine{memory.data()};
  std::vector<float> sums(kTileSide * kTileSide * kChannels);
  for (int warp = 0; warp < kWarpsOfTile; ++warp)
    multiply_run(machine, at, patch, run, warp, [&](int pixel, int channel, float sum, float next) {
      sums[pixel * kChannels + channel] += sum;
      sums[pixel * kChannels + channel + 1] += next;
    });
  std::vector<int> dilations_h, dilations_w;
  for (size_t i = 0; i < pattern.size(); i += 3) {
    dilations_h.insert(dilations_h.end(), pattern[i], static_cast<int>(pattern[i + 1]));
    dilations_w.insert(dilations_w.end(), pattern[i], static_cast<int>(pattern[i + 2]));
  }
  std::vector<float> products(size_t(kRowTaps) * slots * kColumns);
  for (int item = 0; item < 3 * kTiles; ++item) {
    const int tile = item / 3, row = item % 3;
    if (tile >= run.first_tile && tile < run.end_tile) continue;
    for (int warp = 0; warp < kWarpsOfTile; ++warp)
      multiply_row(machine, at, slots, tile, row, warp, [&](int tap, int slot, int column, float sum, float next) {
        products[product_index(slots, tap, slot, column)] = sum;
        products[product_index(slots, tap, slot, column + 1)] = next;
      });
    for (int i = 0; i < kTileSide * kTileSide * kColumns * kRowTaps; ++i) {
      const int tap = i % kRowTaps, column = i / kRowTaps % kColumns, pixel = i / kRowTaps / kColumns;
      const int channel = tile * kColumns + column;
      const int offset = tap_offset(patch, row * kRowTaps + tap, dilations_h[channel], dilations_w[channel]);
      sums[pixel * kChannels + channel] += products[product_index(slots, tap, patch.slot_of(pixel) + offset, column)];
    }
  }
  return sums;
}

template <typename T>
at::Tensor execute(const Geometry& g, const at::Tensor& x, const at::Tensor& weight, Pattern pattern) {
  const int height = static_cast<int>(g.height), width = static_cast<int>(g.width);
  const Patch patch = fused_patch(height, width, pattern);
  const int slots = (patch.slots + kRowsOfGroup - 1) / kRowsOfGroup * kRowsOfGroup;
  std::vector<char> memory(kFilterBytes + size_t(slots) * kPixelBytes);
  const PackTiles<T, true> pass{weight.const_data_ptr<T>(),
                                {weight.stride(0), weight.stride(1), weight.stride(2), weight.stride(3)},
                                reinterpret_cast<T*>(memory.data())};
  for (int i = 0; i < kFragments * kFragmentElements; ++i) pass(i);
  at::Tensor out = at::empty({g.batch, kChannels, height, width}, x.options().dtype(at::kFloat));
  auto to = out.accessor<float, 4>();
  const auto from = x.accessor<T, 4>();
  for (int index = 0; index < g.batch * patch.tiles(); ++index) {
    const Tile tile = locate_tile(patch, index);
    for (int slot = 0; slot < patch.slots; ++slot) {
      const int pixel = source_pixel(patch, tile, slot, height, width);
      T* channels = reinterpret_cast<T*>(&memory[kFilterBytes + size_t(slot) * kPixelBytes]);
      for (int c = 0; c < kChannels; ++c)
        channels[c] = pixel < 0 ? T(0) : from[tile.image][c][pixel / width][pixel % width];
    }
    const std::vector<float> sums = multiply_tile<T>(memory, patch, slots, pattern);
    for (int i = 0; i < kTileSide * kTileSide * kChannels; ++i) {
      const int pixel = i / kChannels, y = tile.y + pixel / kTileSide, column = tile.x + pixel % kTileSide;
      if (y < height && column < width) to[tile.image][i % kChannels][y][column] = sums[i];
    }
  }
  return out;
}

}  // namespace

at::Tensor multiply_by_warpgroups(const Geometry& g, const at::Tensor& x, const at::Tensor& weight, Pattern pattern) {
  at::Tensor out;
  AT_DISPATCH_REDUCED_FLOATING_TYPES(x.scalar_type(), "inception_conv2d",
                                     [&] { out = execute<scalar_t>(g, x, weight, pattern); });
  return out;
}

}  // namespace icconv_mm::testing
