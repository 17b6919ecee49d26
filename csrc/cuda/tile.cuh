// What the tiled kernels share: the pixels of a tile, and the copies of their patches.
#pragma once

#include <c10/core/ScalarType.h>

#include "mma.cuh"
#include "patch.h"

namespace icconv_mm::cuda {

constexpr uint32_t kNothing = 0xffffffffu;  // the source of a slot outside of the image

// Where each slot of a patch comes from, in units of 16 bytes from its image's first.
__device__ inline void find_sources(uint32_t* sources, const Patch& patch, const Tile& tile, int height, int width,
                                    int pixel_vectors) {
  for (int slot = threadIdx.x; slot < patch.slots; slot += blockDim.x) {
    const int pixel = source_pixel(patch, tile, slot, height, width);
    sources[slot] = pixel < 0 ? kNothing : static_cast<uint32_t>(pixel) * static_cast<uint32_t>(pixel_vectors);
  }
}

// Copies the first two 16-byte vectors at each source, as far as there are `vectors` of them; zeros else.
__device__ inline void load_pairs(uint32_t target, int pitch, const uint32_t* sources, int slots, const void* image,
                                  int vectors) {
  const int vector = threadIdx.x % 2;
  const char* base = static_cast<const char*>(image) + (vector < vectors ? vector * kVectorBytes : 0);
  target += vector * kVectorBytes;
  for (int slot = threadIdx.x / 2; slot < slots; slot += blockDim.x / 2) {
    const uint32_t source = sources[slot];
    const bool valid = source != kNothing && vector < vectors;
    copy_async(target + slot * pitch, base + (valid ? uint64_t(source) * kVectorBytes : 0), valid);
  }
}

// Sources are 32-bit numbers.
inline bool addressable(int64_t height, int64_t width, int64_t channels, int vector) {
  return height * width * (channels / vector) < static_cast<int64_t>(kNothing);
}

inline int channels_of_vector(at::ScalarType dtype) { return kVectorBytes / static_cast<int>(c10::elementSize(dtype)); }

constexpr int64_t kReserved = 4096;  // of a processor's shared memory, by the system and for each block's own tables

inline int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace icconv_mm::cuda
