// Gradient of the weight of pyramidal convolutions on tensor cores (../../pyconv/grad_weight.h): a block has one job,
// walks over some of the tiles of pixels, and writes its sums apart from those of other blocks; a second pass adds them
// in a fixed order. It has not run on a GPU.
#include "../../pyconv/grad_weight.h"

#include "../tables.h"
#include "../tile.cuh"
#include "pyconv.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <climits>

namespace icconv_mm::cuda {
namespace {

using pyconv::Job;
using pyconv::kPixelPitch;
using pyconv::kPixelsOfTile;
using pyconv::kTapsOfWarp;

constexpr int kThreads = 32 * pyconv::kWarps;
constexpr int64_t kMaxSlabs = 64, kWorkspace = int64_t{1} << 26;  // bytes of all slabs, unless one is larger

struct Arguments {
  int height, width, in_channels, out_height, out_width, out_channels, stride, dilation;
  Patch patch;
  pyconv::Places places;
  const void *grad, *x;
  float* partial;  // [slabs][filters]
  const Job* jobs;
  const pyconv::Tap* taps;
  int pixel_tiles, stages, stage_bytes;
};

// The patch's places are divided into rows and columns once, not for each tile: divisions are slow.
struct Shared {
  int slots[kPixelsOfTile];   // bytes from the patch's start to a tile pixel's first source pixel
  int pixels[kPixelsOfTile];  // row * 2^16 + column of a tile pixel; -1 past the tile
};

template <typename Math>
struct Lane {
  struct Addresses {
    uint32_t of;
  };
  struct Words {
    uint32_t r[4];
  };
  struct Sums {
    float of[2][4];  // of eight columns each
  };

  template <typename Address>
  __device__ void point(Addresses& to, const Address& address) const {
    to.of = address(threadIdx.x % 32);
  }
  __device__ void load_transposed(Words& to, const Addresses& from, int offset) const {
    load_matrices_transposed(to.r, from.of + offset);
  }
  __device__ void multiply(Sums& sums, const Words& grads, const Words& pixels) const {
    const typename Math::A a = Math::make_a(grads.r);
#pragma unroll
    for (int n = 0; n < 2; ++n) Math::multiply(sums.of[n], a, Math::make_b(pixels.r[2 * n], pixels.r[2 * n + 1]));
  }
};

// The surroundings of a tile in 16 input channels, then its gradients in 16 output channels.
template <typename Math>
__device__ void load_stage(const Arguments& a, const Shared& shared, const int* places, uint32_t target, const Job& job,
                           int pixel_tile) {
  using T = typename Math::Element;
  const Tile tile = locate_tile(a.patch, pixel_tile);
  const int vector = threadIdx.x % 2;
  const int channel = job.column + vector * kVector<Math>, output = job.row + vector * kVector<Math>;
  const T* image = static_cast<const T*>(a.x) + int64_t(tile.image) * a.height * a.width * a.in_channels;
  const int top = tile.y * a.stride - a.patch.before_h, left = tile.x * a.stride - a.patch.before_w;
  target += vector * kVectorBytes;
  for (int slot = threadIdx.x / 2; slot < a.patch.slots; slot += kThreads / 2) {
    const int place = places[slot], column = place & 0xffff;
    const unsigned y = top + (place >> 16), x = left + column;  // negative: beyond every height
    const bool valid =
        channel < a.in_channels && column != kNoColumn && y < unsigned(a.height) && x < unsigned(a.width);
    const int64_t source = valid ? (int64_t(y) * a.width + x) * a.in_channels + channel : 0;
    copy_async(target + slot * kPixelPitch, image + source, valid);
  }
  target += a.patch.slots * kPixelPitch;
  const T* grads = static_cast<const T*>(a.grad) + int64_t(tile.image) * a.out_height * a.out_width * a.out_channels;
  for (int pixel = threadIdx.x / 2; pixel < kPixelsOfTile; pixel += kThreads / 2) {
    const int place = shared.pixels[pixel];
    const int y = tile.y + (place >> 16), x = tile.x + (place & 0xffff);
    const bool valid = output < a.out_channels && place >= 0 && y < a.out_height && x < a.out_width;
    const int64_t source = valid ? (int64_t(y) * a.out_width + x) * a.out_channels + output : 0;
    copy_async(target + pixel * kPixelPitch, grads + source, valid);
  }
}

// Every filter is of one job and one tap: what a block does not write, another does.
template <typename Sums>
__device__ __forceinline__ void store(const Arguments& a, const Job& job, int warp, int taps,
                                      const Sums (&sums)[kTapsOfWarp]) {
  const int lane = threadIdx.x % 32;
  float* partial = a.partial + blockIdx.x * a.places.all;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const pyconv::FilterRow row = find_row(a.places, job.row + pyconv::sum_place(lane, 2 * half).row);
#pragma unroll
    for (int number = 0; number < kTapsOfWarp; ++number) {
      if (number >= taps) continue;
      const pyconv::Tap tap = a.taps[tap_of_warp(job, warp, number)];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = i / 2 * 8 + pyconv::sum_place(lane, i % 2).column;
        const int64_t place = row.place(job.column + column, tap);
        if (place >= 0) partial[place] = sums[number].of[i / 2][2 * half + i % 2];
      }
    }
  }
}

template <typename Math>
__global__ void __launch_bounds__(kThreads, 2) pyconv_weight_kernel(const Arguments a) {
  extern __shared__ __align__(16) char memory[];
  __shared__ Shared shared;
  const Job job = a.jobs[blockIdx.y];
  const int warp = threadIdx.x / 32, taps = taps_of_warp(job, warp), area = a.patch.tile_h * a.patch.tile_w;
  for (int pixel = threadIdx.x; pixel < kPixelsOfTile; pixel += kThreads) {
    shared.slots[pixel] = pyconv::pixel_bytes(a.patch, pixel);
    shared.pixels[pixel] = pixel < area ? pixel / a.patch.tile_w << 16 | pixel % a.patch.tile_w : -1;
  }
  int* places = reinterpret_cast<int*>(memory + a.stages * a.stage_bytes);
  for (int slot = threadIdx.x; slot < a.patch.slots; slot += kThreads)
    places[slot] = slot / a.patch.pitch << 16 | a.patch.column_of(slot);
  int offsets[kTapsOfWarp];
#pragma unroll
  for (int number = 0; number < kTapsOfWarp; ++number)
    offsets[number] = number < taps ? tap_bytes(a.patch, a.taps[tap_of_warp(job, warp, number)], a.dilation) : 0;
  __syncthreads();

  const Lane<Math> lane;
  typename Lane<Math>::Sums sums[kTapsOfWarp] = {};
  const uint32_t base = shared_address(memory);
  const int stride = gridDim.x;
  int stage = 0;
  load_stage<Math>(a, shared, places, base, job, blockIdx.x);
  commit_copies();
  for (int pixel_tile = blockIdx.x; pixel_tile < a.pixel_tiles; pixel_tile += stride) {
    const bool more = pixel_tile + stride < a.pixel_tiles;
    wait_copies<0>();
    __syncthreads();  // this stage is there for all, and nobody reads the other one any more
    if (a.stages == 2 && more) {
      load_stage<Math>(a, shared, places, base + (1 - stage) * a.stage_bytes, job, pixel_tile + stride);
      commit_copies();
    }
    const uint32_t patch = base + stage * a.stage_bytes;
    const pyconv::WeightMemory at{patch, patch + a.patch.slots * kPixelPitch};
    pyconv::multiply_pixels(lane, at, shared.slots, area, offsets, taps, sums);
    if (a.stages == 2) {
      stage = 1 - stage;
    } else if (more) {
      __syncthreads();
      load_stage<Math>(a, shared, places, base, job, pixel_tile + stride);
      commit_copies();
    }
  }
  store(a, job, warp, taps, sums);
}

template <typename T>
__global__ void __launch_bounds__(256) add_kernel(const pyconv::AddSlabs<T> pass, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t(256) + threadIdx.x; i < count; i += int64_t(gridDim.x) * 256) pass(i);
}

template <typename T>
std::vector<at::Tensor> add_slabs(const pyconv::Places& places, const at::Tensor& partial,
                                  const at::TensorOptions& options) {
  std::vector<at::Tensor> out;
  for (int l = 0; l < places.count; ++l) {
    const pyconv::LevelPlace& level = places.levels[l];
    out.push_back(at::empty({level.outputs, level.group_in, level.height, level.width}, options));
    const int64_t count = out.back().numel();
    if (count == 0) continue;
    const pyconv::AddSlabs<T> pass{partial.const_data_ptr<float>() + level.at, out.back().mutable_data_ptr<T>(),
                                   static_cast<int>(partial.size(0)), places.all};
    const int64_t blocks = std::min<int64_t>((count + 255) / 256, 16 * current_device().processors);
    add_kernel<T><<<static_cast<unsigned>(blocks), 256, 0, c10::cuda::getCurrentCUDAStream()>>>(pass, count);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return out;
}

const Table& program_table(const pyconv::Geometry& g) {
  std::vector<int64_t> key;
  for (const pyconv::Level& level : g.levels)
    key.insert(key.end(), {level.outputs, level.height, level.width, level.groups});
  return cached_table(TableKind::kPyconvWeight, {g.in_channels, g.dilation}, key,
                      [&] { return make_weight_program(g); });
}

const pyconv::WeightProgram& program_of(const Table& table) {
  return *reinterpret_cast<const pyconv::WeightProgram*>(table.host.data());
}

Cut cut_for(const pyconv::Geometry& g) {
  const Table& table = program_table(g);
  const pyconv::WeightProgram& program = program_of(table);
  const Device& device = current_device();
  const int64_t limit = device.shared_memory - static_cast<int64_t>(sizeof(Shared)) - 64;
  const Patch patch = fit_patch((limit - kPixelsOfTile * kPixelPitch) / (kPixelPitch + 4), kPixelsOfTile,
                                static_cast<int>(g.out_height), static_cast<int>(g.out_width),
                                static_cast<int>(std::min<int64_t>(g.stride, kMaxPatchStep + 1)), program.reach_h,
                                program.reach_h, program.reach_w, program.reach_w);
  const int64_t tiles = g.batch * patch.tiles();
  const int64_t stage_bytes = (int64_t(patch.slots) + kPixelsOfTile) * kPixelPitch, place_bytes = 4 * patch.slots;
  if (tiles == 0 || tiles > INT_MAX || program.jobs == 0 || program.jobs > 65535 || stage_bytes + place_bytes > limit)
    return {};
  // three turns of two blocks per processor
  const int64_t wanted = (6 * int64_t(device.processors) + program.jobs - 1) / program.jobs;
  const int64_t affordable = std::max<int64_t>(kWorkspace / (places_of(g).all * int64_t(sizeof(float))), 1);
  const int64_t slabs = std::min({tiles, wanted, affordable, kMaxSlabs});
  // two stages where two blocks of them fit a processor
  const int stages = tiles > slabs && 2 * (2 * stage_bytes + place_bytes) <= limit - kReserved ? 2 : 1;
  return {patch, tiles, &table, stage_bytes, stages * stage_bytes + place_bytes, stages, slabs};
}

template <typename Math, typename T>
std::vector<at::Tensor> launch(const Cut& cut, const pyconv::Geometry& g, const at::Tensor& grad, const at::Tensor& x) {
  const pyconv::WeightProgram& program = program_of(*cut.table);
  const pyconv::Places places = places_of(g);
  const at::Tensor partial = at::empty({cut.slabs, places.all}, grad.options().dtype(at::kFloat));
  const Arguments a{static_cast<int>(g.height),
                    static_cast<int>(g.width),
                    static_cast<int>(g.in_channels),
                    static_cast<int>(g.out_height),
                    static_cast<int>(g.out_width),
                    static_cast<int>(g.out_channels),
                    static_cast<int>(g.stride),
                    static_cast<int>(g.dilation),
                    cut.patch,
                    places,
                    grad.const_data_ptr(),
                    x.const_data_ptr(),
                    partial.mutable_data_ptr<float>(),
                    reinterpret_cast<const Job*>(cut.table->device + program.job_at),
                    reinterpret_cast<const pyconv::Tap*>(cut.table->device + program.tap_at),
                    static_cast<int>(cut.tiles),
                    cut.stages,
                    static_cast<int>(cut.stage_bytes)};
  C10_CUDA_CHECK(cudaFuncSetAttribute(pyconv_weight_kernel<Math>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(cut.bytes)));
  const dim3 grid(static_cast<unsigned>(cut.slabs), program.jobs);
  pyconv_weight_kernel<Math><<<grid, kThreads, cut.bytes, c10::cuda::getCurrentCUDAStream()>>>(a);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return add_slabs<T>(places, partial, grad.options());
}

}  // namespace

Cut pyconv_tiled_grad_weight_cut(const pyconv::Geometry& g) { return current_device().major < 8 ? Cut{} : cut_for(g); }

std::vector<at::Tensor> pyconv_tiled_grad_weight(const Cut& cut, const pyconv::Geometry& g, const at::Tensor& grad,
                                                 const at::Tensor& x) {
  const at::Tensor grads = channels_last(grad), inputs = channels_last(x);
  return grad.scalar_type() == at::kHalf ? launch<Float16, at::Half>(cut, g, grads, inputs)
                                         : launch<BFloat16, at::BFloat16>(cut, g, grads, inputs);
}

}  // namespace icconv_mm::cuda
