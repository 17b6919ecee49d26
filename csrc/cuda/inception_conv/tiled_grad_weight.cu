// Gradient of the weight: rows are 16 output channels of one dilation, columns input channels, the reduction goes over
// pixels. A block holds four such row tiles x 64 bytes of input channels x nine taps, a warp two row tiles and a row of
// taps, and walks over some of the pixel tiles; the sums of all blocks are written apart and added in a second pass, in
// a fixed order.
#include "../tile.cuh"
#include "arithmetic.cuh"
#include "shares.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace icconv_mm::cuda {
namespace {

constexpr int kPixels = 128;
constexpr int kRowTiles = 4, kWarpTiles = 2;
constexpr int kThreads = 32 * 3 * (kRowTiles / kWarpTiles);
constexpr int kColumnVectors = 4;
constexpr int kBlockFields = 3;  // group, tiles, first tile
constexpr int kTileFields = 8;   // dilation_h, dilation_w, mask of channels, up to four 16-byte vectors of channels

// 32-bit elements are read word by word: their pitches are odd multiples of 32 bytes, those of the others of 16.
template <typename Math>
constexpr bool kWords = sizeof(typename Math::Element) == 4;
template <typename Math>
constexpr int kTileVectors = 16 / kVector<Math>;
template <typename Math>
constexpr int kRowPitch = kRowTiles * kTileVectors<Math> * kVectorBytes + (kWords<Math> ? 32 : 16);
template <typename Math>
constexpr int kColumnPitch = kColumnVectors * kVectorBytes + (kWords<Math> ? 32 : 16);
template <typename Math>
constexpr int kColumns = kColumnVectors * kVector<Math>;

struct Arguments {
  Geometry32 p;
  Patch patch;
  const void *grad, *x;
  float* partial;  // [slabs][C_out][tap][C_in / groups]
  const int* table;
  int pixel_tiles, stages, stage_bytes;
};

// The patch's places are divided into rows and columns once, not for each tile: divisions are slow.
struct Shared {
  int vectors[kRowTiles * 4];  // which 16 bytes of output channels, or -1
  int slots[kPixels];          // bytes from the patch's start to a tile pixel's first source pixel
  int pixels[kPixels];         // row * 2^16 + column of a tile pixel; -1 past the tile
  int dilations[kRowTiles][2], masks[kRowTiles];
};

template <typename Math>
__device__ void load_stage(const Arguments& a, const Shared& shared, const int* places, uint32_t target, int pixel_tile,
                           int channel, int group) {
  using T = typename Math::Element;
  const Tile tile = locate_tile(a.patch, pixel_tile);
  const int vectors = min(kColumnVectors, (a.p.group_in - channel) / kVector<Math>);
  const T* pixels = static_cast<const T*>(a.x) + int64_t(tile.image) * a.p.height * a.p.width * a.p.in_channels +
                    group * a.p.group_in + channel;
  const int top = tile.y * a.p.stride - a.patch.before_h, left = tile.x * a.p.stride - a.patch.before_w;
  const unsigned height = a.p.height, width = a.p.width, pixel_vectors = a.p.in_channels / kVector<Math>;
  const int column_vector = threadIdx.x % kColumnVectors;
  for (int slot = threadIdx.x / kColumnVectors; slot < a.patch.slots; slot += kThreads / kColumnVectors) {
    const int place = places[slot], column = place & 0xffff;
    const unsigned y = top + (place >> 16), x = left + column;  // negative: beyond every height
    const bool valid = column != kNoColumn && y < height && x < width && column_vector < vectors;
    const uint64_t source = valid ? uint64_t((y * width + x) * pixel_vectors + column_vector) * kVectorBytes : 0;
    copy_async(target + slot * kColumnPitch<Math> + column_vector * kVectorBytes,
               reinterpret_cast<const char*>(pixels) + source, valid);
  }
  target += a.patch.slots * kColumnPitch<Math>;
  constexpr int kVectors = kRowTiles * kTileVectors<Math>;
  const T* grads =
      static_cast<const T*>(a.grad) + int64_t(tile.image) * a.p.out_height * a.p.out_width * a.p.out_channels;
  const unsigned out_vectors = a.p.out_channels / kVector<Math>;
  const int vector = threadIdx.x % kVectors, row_vector = shared.vectors[vector];
  for (int pixel = threadIdx.x / kVectors; pixel < kPixels; pixel += kThreads / kVectors) {
    const int place = shared.pixels[pixel];
    const unsigned y = tile.y + (place >> 16), x = tile.x + (place & 0xffff);
    const bool valid = place >= 0 && row_vector >= 0 && y < unsigned(a.p.out_height) && x < unsigned(a.p.out_width);
    const uint64_t source = valid ? uint64_t((y * a.p.out_width + x) * out_vectors + row_vector) * kVectorBytes : 0;
    copy_async(target + pixel * kRowPitch<Math> + vector * kVectorBytes, reinterpret_cast<const char*>(grads) + source,
               valid);
  }
}

// Fragments of the transposed gradient: 16 channels x the pixels of a reduction step.
template <typename Math>
__device__ typename Math::A load_grads(uint32_t grads, int step, int tile) {
  const int lane = threadIdx.x % 32;
  uint32_t w[4];
  if constexpr (!kWords<Math>) {
    const int pixel = step * 16 + lane % 8 + lane / 16 * 8, vector = tile * 2 + lane / 8 % 2;
    load_matrices_transposed(w, grads + pixel * kRowPitch<Math> + vector * kVectorBytes);
  } else {
    const uint32_t at = grads + (step * 8 + lane % 4) * kRowPitch<Math> + (tile * 16 + lane / 4) * 4;
    w[0] = load_word(at), w[1] = load_word(at + 32);
    w[2] = load_word(at + 4 * kRowPitch<Math>), w[3] = load_word(at + 4 * kRowPitch<Math> + 32);
  }
  return Math::make_a(w);
}

// Fragments of the input at one tap: the pixels of a reduction step x all columns.
template <typename Math>
__device__ void load_inputs(uint32_t patch, const uint32_t (&slots)[2], int offset,
                            typename Math::B (&b)[kColumns<Math> / 8]) {
  const int lane = threadIdx.x % 32;
  if constexpr (!kWords<Math>) {
#pragma unroll
    for (int n = 0; n < kColumns<Math> / 8; n += 2) {
      uint32_t w[4];
      load_matrices_transposed(w, patch + slots[0] + offset + (n + lane / 16) * 16);
      b[n] = Math::make_b(w[0], w[1]), b[n + 1] = Math::make_b(w[2], w[3]);
    }
  } else {
#pragma unroll
    for (int n = 0; n < kColumns<Math> / 8; ++n) {
      const uint32_t at = patch + offset + n * 32 + lane / 4 * 4;
      b[n] = Math::make_b(load_word(at + slots[0]), load_word(at + slots[1]));
    }
  }
}

template <typename Math>
using Sums = float[kWarpTiles][3][kColumns<Math> / 8][4];

// Straight on: a missing second tile repeats the first, and nobody stores it. `kAlike`: both have one dilation.
template <typename Math, bool kAlike>
__device__ void multiply_stage(const Shared& shared, uint32_t patch, uint32_t grads, int first, int second,
                               const int (&offsets)[kWarpTiles][3], Sums<Math>& sums) {
  const int lane = threadIdx.x % 32;
#pragma unroll 2
  for (int step = 0; step < kPixels / kStep<Math>; ++step) {
    uint32_t slots[2];
    if constexpr (!kWords<Math>) {
      slots[0] = shared.slots[step * 16 + lane % 16];
    } else {
      slots[0] = shared.slots[step * 8 + lane % 4], slots[1] = shared.slots[step * 8 + lane % 4 + 4];
    }
    const typename Math::A a[kWarpTiles] = {load_grads<Math>(grads, step, first),
                                            load_grads<Math>(grads, step, second)};
#pragma unroll
    for (int tap = 0; tap < 3; ++tap) {
      typename Math::B b[kColumns<Math> / 8];
#pragma unroll
      for (int i = 0; i < kWarpTiles; ++i) {
        if (i == 0 || !kAlike) load_inputs<Math>(patch, slots, offsets[i][tap], b);
#pragma unroll
        for (int n = 0; n < kColumns<Math> / 8; ++n) Math::multiply(sums[i][tap][n], a[i], b[n]);
      }
    }
  }
}

// Where the pixels of a tile lie: in the patch, and in the tile.
template <typename Math>
__device__ __forceinline__ void find_pixels(const Patch& patch, Shared& shared) {
  const int area = patch.tile_h * patch.tile_w, width = patch.tile_w;
  for (int pixel = threadIdx.x; pixel < kPixels; pixel += kThreads) {
    shared.slots[pixel] = patch.slot_of(min(pixel, area - 1)) * kColumnPitch<Math>;
    shared.pixels[pixel] = pixel < area ? pixel / width << 16 | pixel % width : -1;
  }
}

// Bytes from a tile pixel's first source pixel to the taps of a row, for the tiles of a warp.
template <typename Math>
__device__ __forceinline__ void find_offsets(const Patch& patch, const Shared& shared, int first, int tiles,
                                             int row_of_taps, int (&offsets)[kWarpTiles][3]) {
#pragma unroll
  for (int i = 0; i < kWarpTiles; ++i)
#pragma unroll
    for (int tap = 0; tap < 3; ++tap) {
      const int* dilation = shared.dilations[min(first + i, tiles - 1)];
      offsets[i][tap] = kColumnPitch<Math> * patch.offset(patch.before_h + (row_of_taps - 1) * dilation[0],
                                                          patch.before_w + (tap - 1) * dilation[1]);
    }
}

template <typename Math>
__device__ __forceinline__ void store(const Arguments& a, const Shared& shared, int first, int own, int row_of_taps,
                                      int lane, int channel, const Sums<Math>& sums) {
  float* partial = a.partial + int64_t(blockIdx.x) * a.p.out_channels * kTaps * a.p.group_in;
#pragma unroll
  for (int i = 0; i < kWarpTiles; ++i) {
    if (i >= own) break;
    const int tile = first + i;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      if ((shared.masks[tile] >> row & 1) == 0) continue;
      const int vector = shared.vectors[tile * kTileVectors<Math> + row / kVector<Math>];
      const int64_t output = int64_t(vector) * kVector<Math> + row % kVector<Math>;
#pragma unroll
      for (int tap = 0; tap < 3; ++tap)
#pragma unroll
        for (int n = 0; n < kColumns<Math> / 8; ++n) {
          const int column = channel + n * 8 + lane % 4 * 2;
          if (column >= a.p.group_in) continue;
          float* target = partial + (output * kTaps + row_of_taps * 3 + tap) * a.p.group_in + column;
          *reinterpret_cast<float2*>(target) = make_float2(sums[i][tap][n][2 * half], sums[i][tap][n][2 * half + 1]);
        }
    }
  }
}

template <typename Math>
__global__ void __launch_bounds__(kThreads, 2) grad_weight_kernel(const Arguments a) {
  extern __shared__ __align__(16) char memory[];
  __shared__ Shared shared;
  const int* block = a.table + blockIdx.y * kBlockFields;
  const int group = block[0], tiles = block[1];
  const int* entries = a.table + block[2] * kTileFields;
  const int channel = blockIdx.z * kColumns<Math>;
  constexpr int kVectors = kRowTiles * kTileVectors<Math>;
  for (int i = threadIdx.x; i < kVectors; i += kThreads) {
    const int tile = i / kTileVectors<Math>;
    shared.vectors[i] = tile < tiles ? entries[tile * kTileFields + 3 + i % kTileVectors<Math>] : -1;
    if (i < tiles) {
      shared.dilations[i][0] = entries[i * kTileFields], shared.dilations[i][1] = entries[i * kTileFields + 1];
      shared.masks[i] = entries[i * kTileFields + 2];
    }
  }
  find_pixels<Math>(a.patch, shared);
  int* places = reinterpret_cast<int*>(memory + a.stages * a.stage_bytes);
  for (int slot = threadIdx.x; slot < a.patch.slots; slot += kThreads)
    places[slot] = slot / a.patch.pitch << 16 | a.patch.column_of(slot);
  __syncthreads();

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row_of_taps = warp % 3;
  const int first = warp / 3 * kWarpTiles, own = min(kWarpTiles, max(0, tiles - first));
  int offsets[kWarpTiles][3];
  find_offsets<Math>(a.patch, shared, first, tiles, row_of_taps, offsets);
  const int second = min(first + 1, tiles - 1);
  const bool alike = shared.dilations[min(first, tiles - 1)][0] == shared.dilations[second][0] &&
                     shared.dilations[min(first, tiles - 1)][1] == shared.dilations[second][1];
  Sums<Math> sums = {};
  const uint32_t base = shared_address(memory);
  const int stride = gridDim.x;
  int stage = 0;
  load_stage<Math>(a, shared, places, base, blockIdx.x, channel, group);
  commit_copies();
  for (int pixel_tile = blockIdx.x; pixel_tile < a.pixel_tiles; pixel_tile += stride) {
    const bool more = pixel_tile + stride < a.pixel_tiles;
    wait_copies<0>();
    __syncthreads();
    if (a.stages == 2 && more) {
      load_stage<Math>(a, shared, places, base + (1 - stage) * a.stage_bytes, pixel_tile + stride, channel, group);
      commit_copies();
    }
    const uint32_t patch = base + stage * a.stage_bytes;
    const uint32_t grads = patch + a.patch.slots * kColumnPitch<Math>;
    if (own > 0 && alike) multiply_stage<Math, true>(shared, patch, grads, first, second, offsets, sums);
    if (own > 0 && !alike) multiply_stage<Math, false>(shared, patch, grads, first, second, offsets, sums);
    if (a.stages == 2) {
      stage = 1 - stage;
    } else if (more) {
      __syncthreads();
      load_stage<Math>(a, shared, places, base, pixel_tile + stride, channel, group);
      commit_copies();
    }
  }

  store<Math>(a, shared, first, own, row_of_taps, lane, channel, sums);
}

// [slabs][C_out][tap][C] -> [C_out][C][tap]
template <typename Math>
__global__ void add_slabs(const float* partial, typename Math::Element* out, int slabs, int64_t filters, int channels) {
  const int64_t size = filters * kTaps * channels;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x) {
    float sum = 0;
    for (int slab = 0; slab < slabs; ++slab) sum += partial[slab * size + i];
    const int64_t channel = i % channels, tap = i / channels % kTaps, filter = i / (int64_t(kTaps) * channels);
    out[(filter * channels + channel) * kTaps + tap] = Math::round(sum);
  }
}

// Row tiles of 16 channels of one dilation: 2 (4 for 32-bit elements) vectors of 16 bytes, aligned as in memory.
std::vector<int> build_table(const Geometry32& p, Pattern pattern, int vector) {
  const int vectors = 16 / vector;
  std::vector<int> blocks, tiles;
  int group = -1;
  for (int wanted = 0; wanted < p.groups; ++wanted)
    for (const Share& share : make_shares(p, pattern)) {
      if (share.group != wanted) continue;
      int used = vectors;  // of the last tile
      int last = -1;
      for (int channel : share.channels) {
        if (channel / vector != last) {
          last = channel / vector;
          if (used == vectors) {
            used = 0;
            if (group != wanted || blocks[blocks.size() - 2] == kRowTiles)
              blocks.insert(blocks.end(), {wanted, 0, static_cast<int>(tiles.size()) / kTileFields});
            group = wanted;
            ++blocks[blocks.size() - 2];
            tiles.insert(tiles.end(), {share.dilation_h, share.dilation_w, 0, -1, -1, -1, -1, 0});
          }
          tiles[tiles.size() - kTileFields + 3 + used++] = last;
        }
        tiles[tiles.size() - kTileFields + 2] |= 1 << ((used - 1) * vector + channel % vector);
      }
    }
  const int count = static_cast<int>(blocks.size()) / kBlockFields;
  const int start = round_up(static_cast<int>(blocks.size()), kTileFields) / kTileFields;
  for (int i = 0; i < count; ++i) blocks[i * kBlockFields + 2] += start;
  blocks.resize(static_cast<size_t>(start) * kTileFields);
  blocks.insert(blocks.end(), tiles.begin(), tiles.end());
  blocks.push_back(count);  // last, for the host
  return blocks;
}

int row_blocks_of(const Table& table) { return table.host.back(); }

template <typename Math>
int column_blocks_of(const Geometry32& p) {
  return (p.group_in + kColumns<Math> - 1) / kColumns<Math>;
}

template <typename Math>
Cut cut_for(const Geometry32& p, Pattern pattern) {
  const Device& device = current_device();
  const int dh = static_cast<int>(max_dilation(pattern, 0)), dw = static_cast<int>(max_dilation(pattern, 1));
  const int64_t limit = device.shared_memory - static_cast<int64_t>(sizeof(Shared)) - 64;
  const Patch patch = fit_patch((limit - kPixels * kRowPitch<Math>) / (kColumnPitch<Math> + 4), kPixels, p.out_height,
                                p.out_width, p.stride, dh, dh, dw, dw);
  const int64_t tiles = int64_t(p.batch) * patch.tiles();
  const Table& table = cached_table(TableKind::kGradWeight, {p.groups, kVector<Math>}, pattern,
                                    [&] { return build_table(p, pattern, kVector<Math>); });
  const int grid_y = row_blocks_of(table), grid_z = column_blocks_of<Math>(p);
  const int64_t stage_bytes = int64_t(patch.slots) * kColumnPitch<Math> + kPixels * kRowPitch<Math>;
  const int64_t place_bytes = 4 * int64_t(patch.slots);
  if (!addressable(p.height, p.width, p.in_channels, kVector<Math>) ||
      !addressable(p.out_height, p.out_width, p.out_channels, kVector<Math>))
    return {};
  if (tiles == 0 || tiles > INT_MAX || grid_y > 65535 || grid_z > 65535 || stage_bytes + place_bytes > limit) return {};
  // three turns of two blocks per processor, and no more slabs than 64: each is a copy of the gradient
  const int64_t wanted = (6 * int64_t(device.processors) + grid_y * grid_z - 1) / (grid_y * int64_t(grid_z));
  const int64_t slabs = std::min({tiles, wanted, int64_t(64)});
  // two stages where two blocks of them fit a processor
  const int stages = tiles > slabs && 2 * (2 * stage_bytes + place_bytes) <= limit - kReserved ? 2 : 1;
  return {patch, tiles, &table, stage_bytes, stages * stage_bytes + place_bytes, stages, slabs};
}

template <typename Math>
at::Tensor launch(const Cut& cut, const Geometry32& p, const at::Tensor& grad, const at::Tensor& x) {
  const int64_t slabs = cut.slabs;
  const at::Tensor partial = at::empty({slabs, p.out_channels, kTaps, p.group_in}, grad.options().dtype(at::kFloat));
  at::Tensor out = at::empty({p.out_channels, p.group_in, 3, 3}, grad.options());
  const Arguments a{
      p,
      cut.patch,
      grad.const_data_ptr(),
      x.const_data_ptr(),
      partial.mutable_data_ptr<float>(),
      cut.table->device,
      static_cast<int>(cut.tiles),
      cut.stages,
      static_cast<int>(cut.stage_bytes),
  };
  C10_CUDA_CHECK(cudaFuncSetAttribute(grad_weight_kernel<Math>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(cut.bytes)));
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const dim3 grid(static_cast<unsigned>(slabs), row_blocks_of(*cut.table), column_blocks_of<Math>(p));
  grad_weight_kernel<Math><<<grid, kThreads, cut.bytes, stream>>>(a);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  const int64_t blocks = std::min<int64_t>((out.numel() + 255) / 256, 16 * current_device().processors);
  add_slabs<Math><<<static_cast<unsigned>(blocks), 256, 0, stream>>>(
      partial.const_data_ptr<float>(), static_cast<typename Math::Element*>(out.mutable_data_ptr()),
      static_cast<int>(slabs), p.out_channels, p.group_in);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

Cut grad_weight_tiled_cut(const Geometry32& p, at::ScalarType dtype, Pattern pattern, Precision precision) {
  const int vector = channels_of_vector(dtype);
  if (current_device().major < 8 || p.group_in % vector != 0 || p.out_channels % vector != 0) return {};
  return with_arithmetic(dtype, precision, [&](auto arithmetic) { return cut_for<decltype(arithmetic)>(p, pattern); });
}

at::Tensor grad_weight_tiled(const Cut& cut, const Geometry32& p, const at::Tensor& grad, const at::Tensor& x,
                             Precision precision) {
  const at::Tensor grads = channels_last(grad), inputs = channels_last(x);
  return with_arithmetic(grad.scalar_type(), precision,
                         [&](auto arithmetic) { return launch<decltype(arithmetic)>(cut, p, grads, inputs); });
}

}  // namespace icconv_mm::cuda
