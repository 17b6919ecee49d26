// A rectangle of source pixels in shared memory, from which a tile of pixels reads all taps of all dilations: a
// dilation is then an offset of the address, not a copy of the tile.
#pragma once

#include <algorithm>
#include <cstdint>

namespace icconv_mm::cuda {

constexpr int kNoColumn = 0xffff;  // a patch that fits shared memory is narrower

// A tile is tile_h x tile_w pixels that lie `step` source pixels apart. Source columns are stored by their remainder
// modulo step, so that the pixels of a row, which read every step-th column, find them next to each other.
struct Patch {
  int tile_h, tile_w, tiles_h, tiles_w;
  int step, before_h, before_w;
  int rows, columns, phase;  // phase: stored columns of one remainder
  int pitch, slots;          // slots of a source row and of the whole patch; one slot holds one pixel

  // Slot of a source pixel relative to that of tile pixel (0, 0); `down` and `right` count from the patch's corner.
  __host__ __device__ int offset(int down, int right) const {
    return down * pitch + right % step * phase + right / step;
  }
  __host__ __device__ int slot_of(int pixel) const { return pixel / tile_w * step * pitch + pixel % tile_w; }
  // Source column of a slot, from the patch's left; beyond every image for the slots that only pad a row.
  __host__ __device__ int column_of(int slot) const {
    const int rest = slot % pitch;
    return rest < phase * step ? rest % phase * step + rest / phase : kNoColumn;
  }
  __host__ __device__ int tiles() const { return tiles_h * tiles_w; }
};

struct Tile {
  int image, y, x;  // of its first pixel, in tile pixels
};

__host__ __device__ inline Tile locate_tile(const Patch& patch, int index) {
  const int image = index / patch.tiles(), rest = index % patch.tiles();
  return {image, rest / patch.tiles_w * patch.tile_h, rest % patch.tiles_w * patch.tile_w};
}

// Index in its image of the source pixel that belongs into a slot, or -1 for the zeros around the image.
__host__ __device__ inline int source_pixel(const Patch& patch, const Tile& tile, int slot, int height, int width) {
  const int y = tile.y * patch.step - patch.before_h + slot / patch.pitch, column = patch.column_of(slot);
  const int x = tile.x * patch.step - patch.before_w + column;
  return column != kNoColumn && y >= 0 && y < height && x >= 0 && x < width ? y * width + x : -1;
}

inline Patch try_patch(int height, int width, int tile_h, int tile_w, int step, int before_h, int after_h, int before_w,
                       int after_w) {
  Patch patch;
  patch.tile_h = tile_h, patch.tile_w = tile_w, patch.step = step;
  patch.tiles_h = (height + tile_h - 1) / tile_h, patch.tiles_w = (width + tile_w - 1) / tile_w;
  patch.before_h = before_h, patch.before_w = before_w;
  patch.rows = (tile_h - 1) * step + 1 + before_h + after_h;
  patch.columns = (tile_w - 1) * step + 1 + before_w + after_w;
  patch.phase = (patch.columns + step - 1) / step;
  patch.pitch = patch.phase * step;
  // Eight pixels in turn must lie in eight different banks, also where a tile row ends among them: their slots must
  // differ modulo 8.
  for (int pad = 0; pad < 8; ++pad)
    if ((step * (patch.pitch + pad) - tile_w) % 8 == 0) {
      patch.pitch += pad;
      break;
    }
  patch.slots = patch.rows * patch.pitch;
  return patch;
}

// The shape of a tile of at most `pixels` for a map of height x width that needs the fewest tiles and small patches.
inline Patch make_patch(int pixels, int height, int width, int step, int before_h, int after_h, int before_w,
                        int after_w) {
  Patch best{};
  double best_cost = 0;
  for (int tile_w = std::min(width, 4); tile_w <= std::min(width, pixels); ++tile_w) {
    const int tile_h = std::min(height, pixels / tile_w);
    const Patch patch = try_patch(height, width, tile_h, tile_w, step, before_h, after_h, before_w, after_w);
    const bool conflicts = (step * patch.pitch - tile_w) % 8 != 0;
    const double cost =
        static_cast<double>(patch.tiles_h) * patch.tiles_w * (1 + patch.slots / 2000.0) * (conflicts ? 1.2 : 1);
    if (best_cost == 0 || cost < best_cost) best = patch, best_cost = cost;
  }
  return best;
}

constexpr int kMaxHalo = 2048, kMaxPatchStep = 64;  // far beyond what fits: keeps the numbers of slots in 32 bits

// The same with at most `max_slots` slots, for fewer pixels if need be; without tiles where none fits.
inline Patch fit_patch(int64_t max_slots, int pixels, int height, int width, int step, int before_h, int after_h,
                       int before_w, int after_w) {
  if (std::max({before_h, after_h, before_w, after_w}) > kMaxHalo || step > kMaxPatchStep) return Patch{};
  for (; pixels >= 16; pixels /= 2) {
    const Patch patch = make_patch(pixels, height, width, step, before_h, after_h, before_w, after_w);
    if (patch.slots <= max_slots) return patch;
  }
  return Patch{};
}

}  // namespace icconv_mm::cuda
