// The pyramidal convolution on tensor cores: rows are 256 output pixels, columns up to 64 output channels. The pixels
// around a tile lie in shared memory once, 32 bytes of their channels at a time, so that an offset of any level is an
// offset of the address; fragments of filters come from memory as the products want them (../../pyconv/levels.h).
#include "pyconv.h"

#include "../tables.h"
#include "../tile.cuh"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <climits>

namespace icconv_mm::cuda {
namespace {

using pyconv::kLanes;
using pyconv::kTileColumns;
using pyconv::kTilesOfBlock;

constexpr int kPixels = 256, kThreads = 128;       // four warps, each 64 pixels x 64 columns
constexpr int kWarpM = 4;                          // 16-pixel rows of products of a warp
constexpr int kPitch = kStepBytes + kVectorBytes;  // bytes of a pixel in shared memory: an odd number of vectors
constexpr int kStaged = kTileColumns * kTilesOfBlock + 8;  // elements of a pixel on the way out

struct Sizes {
  int batch, channels, height, width;  // of what is read
  int columns, out_height, out_width;
};

struct Arguments {
  Sizes p;
  Patch patch;
  const void *x, *bias;
  const uint2* fragments;  // [fragment][lane]
  void* out;
  const pyconv::Block* blocks;
  const pyconv::Step* steps;
  const pyconv::Offset* offsets;
  int stage_bytes, phase_step;
  bool relu;
};

// The fragments of one offset, one for each tile that the mask names; they follow one another.
__device__ __forceinline__ void load_filters(uint2 (&filters)[kTilesOfBlock], const uint2* from, int mask) {
#pragma unroll
  for (int tile = 0; tile < kTilesOfBlock; ++tile)
    if (mask >> tile & 1) {
      filters[tile] = __ldg(from + __popc(mask & ((1 << tile) - 1)) * kLanes);
    }
}

template <typename Math>
__device__ __forceinline__ void multiply_offset(float (&sums)[kWarpM][kTilesOfBlock][4],
                                                const uint32_t (&pixels)[kWarpM], int offset,
                                                const uint2 (&filters)[kTilesOfBlock], int mask) {
  typename Math::A a[kWarpM];
#pragma unroll
  for (int m = 0; m < kWarpM; ++m) {
    uint32_t words[4];
    load_matrices(words, pixels[m] + offset);
    a[m] = Math::make_a(words);
  }
#pragma unroll
  for (int tile = 0; tile < kTilesOfBlock; ++tile) {
    if (!(mask >> tile & 1)) continue;
    const typename Math::B b = Math::make_b(filters[tile].x, filters[tile].y);
#pragma unroll
    for (int m = 0; m < kWarpM; ++m) Math::multiply(sums[m][tile], a[m], b);
  }
}

// 16 input channels at all offsets that the block reads; the filters of the next offset are on their way meanwhile.
template <typename Math>
__device__ __forceinline__ void multiply_step(float (&sums)[kWarpM][kTilesOfBlock][4], const Arguments& a,
                                              const pyconv::Step& step, const uint32_t (&pixels)[kWarpM], int lane) {
  const uint2* next = a.fragments + int64_t(step.first_fragment) * kLanes + lane;
  const pyconv::Offset* offsets = a.offsets + step.first_offset;
  pyconv::Offset current = offsets[0];
  uint2 filters[kTilesOfBlock], ahead[kTilesOfBlock];
  load_filters(filters, next, current.mask);
#pragma unroll 1
  for (int i = 0; i < step.offsets; ++i) {
    next += __popc(current.mask) * kLanes;
    const pyconv::Offset following = offsets[min(i + 1, step.offsets - 1)];
    if (i + 1 < step.offsets) load_filters(ahead, next, following.mask);
    const int place = a.patch.offset(a.patch.before_h + current.dy, a.patch.before_w + current.dx);
    multiply_offset<Math>(sums, pixels, place * kPitch, filters, current.mask);
    current = following;
#pragma unroll
    for (int tile = 0; tile < kTilesOfBlock; ++tile) filters[tile] = ahead[tile];
  }
}

// Through shared memory, so that the channels of a pixel are written together.
template <typename Math>
__device__ void store(const Arguments& a, const Tile& tile, char* memory, int first_pixel, int first_column,
                      const float (&sums)[kWarpM][kTilesOfBlock][4]) {
  using T = typename Math::Element;
  constexpr int kVec = kVector<Math>;
  const int lane = threadIdx.x % 32, columns = min(kTileColumns * kTilesOfBlock, a.p.columns - first_column);
  T* staged = reinterpret_cast<T*>(memory);
#pragma unroll
  for (int j = 0; j < kTilesOfBlock; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = j * kTileColumns + lane % 4 * 2 + i % 2;
      const bool inside = column < columns;
      const float bias = a.bias && inside ? Math::widen(static_cast<const T*>(a.bias)[first_column + column]) : 0.f;
#pragma unroll
      for (int m = 0; m < kWarpM; ++m) {
        float value = sums[m][j][i] + bias;
        if (a.relu && value < 0) value = 0;  // NaN stays
        staged[(first_pixel + 16 * m + 8 * (i / 2) + lane / 4) * kStaged + column] = Math::round(value);
      }
    }
  __syncthreads();
  const int vectors = columns / kVec;
  for (int i = threadIdx.x; i < kPixels * vectors; i += kThreads) {
    const int pixel = i / vectors, vector = i % vectors;
    const int y = (tile.y + pixel / a.patch.tile_w) * a.phase_step + blockIdx.z / a.phase_step;
    const int x = (tile.x + pixel % a.patch.tile_w) * a.phase_step + blockIdx.z % a.phase_step;
    if (pixel >= a.patch.tile_h * a.patch.tile_w || y >= a.p.out_height || x >= a.p.out_width) continue;
    T* out = static_cast<T*>(a.out) + ((int64_t(tile.image) * a.p.out_height + y) * a.p.out_width + x) * a.p.columns;
    *reinterpret_cast<uint4*>(out + first_column + vector * kVec) =
        *reinterpret_cast<const uint4*>(staged + pixel * kStaged + vector * kVec);
  }
}

template <typename Math>
__global__ void __launch_bounds__(kThreads, 2) pyconv_kernel(const Arguments a) {
  using T = typename Math::Element;
  extern __shared__ __align__(16) char memory[];
  uint32_t* sources = reinterpret_cast<uint32_t*>(memory + 2 * a.stage_bytes);
  const pyconv::Block block = a.blocks[blockIdx.z * gridDim.y + blockIdx.y];
  const Tile tile = locate_tile(a.patch, blockIdx.x);
  find_sources(sources, a.patch, tile, a.p.height, a.p.width, a.p.channels / kVector<Math>);
  __syncthreads();

  const int lane = threadIdx.x % 32, first_pixel = threadIdx.x / 32 * 16 * kWarpM;
  const int area = a.patch.tile_h * a.patch.tile_w;
  const uint32_t base = shared_address(memory);
  uint32_t pixels[kWarpM];
#pragma unroll
  for (int m = 0; m < kWarpM; ++m) {
    const int pixel = min(first_pixel + 16 * m + lane % 16, area - 1);  // a surplus row computes what nobody stores
    pixels[m] = base + a.patch.slot_of(pixel) * kPitch + lane / 16 * kVectorBytes;
  }
  const T* image = static_cast<const T*>(a.x) + int64_t(tile.image) * a.p.height * a.p.width * a.p.channels;
  const auto load = [&](int number) {
    const int channel = a.steps[block.first_step + number].channel;
    load_pairs(base + number % 2 * a.stage_bytes, kPitch, sources, a.patch.slots, image + channel,
               (a.p.channels - channel) / kVector<Math>);
    commit_copies();
  };
  float sums[kWarpM][kTilesOfBlock][4] = {};
  if (block.steps > 0) load(0);
  for (int number = 0; number < block.steps; ++number) {
    wait_copies<0>();
    __syncthreads();  // this stage is there for all, and nobody reads the other one any more
    if (number + 1 < block.steps) load(number + 1);
    multiply_step<Math>(sums, a, a.steps[block.first_step + number], pixels, lane);
#pragma unroll
    for (int m = 0; m < kWarpM; ++m) pixels[m] += number % 2 ? -a.stage_bytes : a.stage_bytes;
  }
  __syncthreads();  // the stages become the store's
  store<Math>(a, tile, memory, first_pixel, blockIdx.y * kTileColumns * kTilesOfBlock, sums);
}

template <typename T>
__global__ void __launch_bounds__(256) pack_kernel(const pyconv::PackFragments<T> pass, uint32_t count) {
  const uint32_t index = blockIdx.x * 256 + threadIdx.x;
  if (index < count) pass(index);
}

template <typename T>
at::Tensor pack(const pyconv::Geometry& g, const pyconv::Program& program, const Table& table, at::TensorList weights,
                bool backward) {
  const uint32_t count = static_cast<uint32_t>(program.fragments) * kLanes * 4;
  at::Tensor packed = at::empty({count}, weights[0].options());
  pyconv::PackFragments<T> pass{};
  for (size_t l = 0; l < weights.size(); ++l) pass.levels[l] = pyconv::filters_of<T>(g, g.levels[l], weights[l]);
  pass.count = static_cast<int>(weights.size());
  pass.fragments = reinterpret_cast<const pyconv::Fragment*>(table.device + program.fragment_at);
  pass.columns = static_cast<int>(backward ? g.in_channels : g.out_channels);
  pass.channels = static_cast<int>(backward ? g.out_channels : g.in_channels);
  pass.backward = backward, pass.out = packed.mutable_data_ptr<T>();
  pack_kernel<T><<<(count + 255) / 256, 256, 0, c10::cuda::getCurrentCUDAStream()>>>(pass, count);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return packed;
}

const Table& program_table(const pyconv::Geometry& g, bool backward) {
  std::vector<int64_t> key;
  for (const pyconv::Level& level : g.levels)
    key.insert(key.end(), {level.outputs, level.height, level.width, level.groups});
  return cached_table(TableKind::kPyconv, {g.in_channels, g.dilation, backward ? g.stride : 0}, key,
                      [&] { return make_program(g, backward); });
}

const pyconv::Program& program_of(const Table& table) {
  return *reinterpret_cast<const pyconv::Program*>(table.host.data());
}

Sizes sizes_of(const pyconv::Geometry& g, bool backward) {
  return {static_cast<int>(g.batch),
          static_cast<int>(backward ? g.out_channels : g.in_channels),
          static_cast<int>(backward ? g.out_height : g.height),
          static_cast<int>(backward ? g.out_width : g.width),
          static_cast<int>(backward ? g.in_channels : g.out_channels),
          static_cast<int>(backward ? g.height : g.out_height),
          static_cast<int>(backward ? g.width : g.out_width)};
}

template <typename Math, typename T>
at::Tensor launch(const Cut& cut, const pyconv::Geometry& g, const at::Tensor& source, at::TensorList weights,
                  const at::Tensor& bias, bool relu, bool backward) {
  const pyconv::Program& program = program_of(*cut.table);
  const Sizes p = sizes_of(g, backward);
  const int phase_step = pyconv::phase_step(g, backward);
  const at::Tensor x = channels_last(source), packed = pack<T>(g, program, *cut.table, weights, backward);
  at::Tensor out =
      at::empty({p.batch, p.columns, p.out_height, p.out_width}, x.options(), at::MemoryFormat::ChannelsLast);
  const Arguments a{p,
                    cut.patch,
                    x.const_data_ptr(),
                    bias.defined() ? bias.const_data_ptr() : nullptr,
                    reinterpret_cast<const uint2*>(packed.const_data_ptr()),
                    out.mutable_data_ptr(),
                    reinterpret_cast<const pyconv::Block*>(cut.table->device + program.block_at),
                    reinterpret_cast<const pyconv::Step*>(cut.table->device + program.step_at),
                    reinterpret_cast<const pyconv::Offset*>(cut.table->device + program.offset_at),
                    static_cast<int>(cut.stage_bytes),
                    phase_step,
                    relu};
  C10_CUDA_CHECK(cudaFuncSetAttribute(pyconv_kernel<Math>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(cut.bytes)));
  const dim3 grid(static_cast<unsigned>(cut.tiles), program.blocks, phase_step * phase_step);
  pyconv_kernel<Math><<<grid, kThreads, cut.bytes, c10::cuda::getCurrentCUDAStream()>>>(a);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

Cut pyconv_tiled_cut(const pyconv::Geometry& g, bool backward) {
  using Math = Float16;  // or BFloat16: all sizes are of 16 bits
  if (current_device().major < 8) return {};
  const Table& table = program_table(g, backward);
  const pyconv::Program& program = program_of(table);
  const Sizes p = sizes_of(g, backward);
  const int64_t limit = current_device().shared_memory;
  const int phase_step = pyconv::phase_step(g, backward);  // tiles are of the first phase, which is the largest
  const Patch patch = fit_patch((limit - 64) / (2 * kPitch + 4), kPixels, (p.out_height - 1) / phase_step + 1,
                                (p.out_width - 1) / phase_step + 1, backward ? 1 : static_cast<int>(g.stride),
                                program.reach_h, program.reach_h, program.reach_w, program.reach_w);
  const int64_t tiles = int64_t(p.batch) * patch.tiles();
  if (tiles == 0 || tiles > INT_MAX || !addressable(p.height, p.width, p.channels, kVector<Math>)) return {};
  const int64_t stage_bytes = int64_t(patch.slots) * kPitch;
  const int64_t bytes =
      std::max<int64_t>(2 * stage_bytes + 4 * int64_t(patch.slots), kPixels * kStaged * int64_t(sizeof(Math::Element)));
  constexpr int kMostFragments = INT_MAX / (4 * kLanes);
  if (bytes > limit || program.blocks > 65535 || program.fragments == 0 || program.fragments > kMostFragments)
    return {};
  return {patch, tiles, &table, stage_bytes, bytes, 2};
}

at::Tensor pyconv_tiled(const Cut& cut, const pyconv::Geometry& g, const at::Tensor& source, at::TensorList weights,
                        const at::Tensor& bias, bool relu, bool backward) {
  return source.scalar_type() == at::kHalf
             ? launch<Float16, at::Half>(cut, g, source, weights, bias, relu, backward)
             : launch<BFloat16, at::BFloat16>(cut, g, source, weights, bias, relu, backward);
}

}  // namespace icconv_mm::cuda
