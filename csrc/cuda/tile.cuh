// What the tiled kernels share: the pixels of a tile, and the copies of their patches.
#pragma once

#include "mma.cuh"
#include "patch.h"

namespace icconv_mm::cuda {

struct Tile {
  int image, y, x;  // of its first pixel, in tile pixels
};

__device__ inline Tile locate_tile(const Patch& patch, int index) {
  const int image = index / patch.tiles(), rest = index % patch.tiles();
  return {image, rest / patch.tiles_w * patch.tile_h, rest % patch.tiles_w * patch.tile_w};
}

// Index in its image of the source pixel that belongs into a slot, or -1 for the zeros around the image.
__device__ inline int source_pixel(const Patch& patch, const Tile& tile, int slot, int height, int width) {
  const int y = tile.y * patch.step - patch.before_h + slot / patch.pitch, column = patch.column_of(slot);
  const int x = tile.x * patch.step - patch.before_w + column;
  return column != kNoColumn && y >= 0 && y < height && x >= 0 && x < width ? y * width + x : -1;
}

// Copies `vectors` x 16 bytes for each of `rows` rows: `kVectors` is how many fit, `sources` each row's index or -1.
template <int kVectors>
__device__ inline void load_rows(uint32_t target, int pitch, const int* sources, int rows, const void* base,
                                 int64_t source_bytes, int vectors) {
  for (int i = threadIdx.x; i < rows * kVectors; i += blockDim.x) {
    const int row = i / kVectors, vector = i % kVectors, source = sources[row];
    const bool valid = source >= 0 && vector < vectors;
    const char* address = static_cast<const char*>(base);
    if (valid) address += source * source_bytes + vector * kVectorBytes;
    copy_async(target + row * pitch + vector * kVectorBytes, address, valid);
  }
}

inline int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace icconv_mm::cuda
