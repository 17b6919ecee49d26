// One pass for 64 channels in 16 bits at stride 1: a tile's pixels with all they read lie in shared memory once, as
// 16 x 16 pixels and the border of the largest dilation. The longest run is multiplied tap by tap, as everywhere. The
// channels of the short runs come eight at a time, three taps each as columns of one product over the whole patch, as
// kn2row does it; shifted additions out of shared memory then put each channel's taps together. So a pixel is loaded
// once for 24 columns, and not once for every eight columns and tap.
#include "../../inception_conv/fused.h"

#include "../../kn2row/plan.h"
#include "../tile.cuh"
#include "shares.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace icconv_mm::cuda {
namespace {

using namespace fused;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kPitch = 2 * kChannels + kVectorBytes;                 // bytes of a pixel: an odd number of vectors
constexpr int kItems = kTileSide * kTileSide * kColumns / kThreads;  // of shifted additions, per thread

struct Arguments {
  Problem p;
  Patch patch;
  const void *x, *bias;
  const uint2* fragments;                            // [tile][tap][step][lane]
  const int* dilations;                              // [channel][3]: of the height, of the width, and the group
  int first_tile, end_tile, dilation_h, dilation_w;  // of the longest run
  void* out;
  bool relu;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) pack_kernel(const PackTiles<T> pass) {
  pass(blockIdx.x * kThreads + threadIdx.x);
}

template <typename Math>
__device__ __forceinline__ typename Math::B filters_of(const Arguments& a, int tile, int tap, int step) {
  const uint2 words = __ldg(a.fragments + fragment_of(tile, tap, step) * 32 + threadIdx.x % 32);
  return Math::make_b(words.x, words.y);
}

template <typename Math>
__device__ __forceinline__ typename Math::A pixels_at(uint32_t address) {
  uint32_t words[4];
  load_matrices(words, address);
  return Math::make_a(words);
}

__device__ __forceinline__ void load_patch(const Arguments& a, const Tile& tile, uint32_t base) {
  const char* image = static_cast<const char*>(a.x) + int64_t(tile.image) * a.p.height * a.p.width * 2 * kChannels;
  constexpr int kVectors = 2 * kChannels / kVectorBytes;
  for (int i = threadIdx.x; i < a.patch.slots * kVectors; i += kThreads) {
    const int slot = i / kVectors, vector = i % kVectors;
    const int pixel = source_pixel(a.patch, tile, slot, a.p.height, a.p.width);
    const int64_t from = pixel < 0 ? 0 : int64_t(pixel) * 2 * kChannels + vector * kVectorBytes;
    copy_async(base + slot * kPitch + vector * kVectorBytes, image + from, pixel >= 0);
  }
  commit_copies();
}

template <typename Math>
__device__ __forceinline__ void store(const Arguments& a, const Tile& tile, int pixel, int channel, float value) {
  using T = typename Math::Element;
  const int y = tile.y + pixel / kTileSide, x = tile.x + pixel % kTileSide;
  if (y >= a.p.out_height || x >= a.p.out_width) return;
  if (a.bias) value += Math::widen(static_cast<const T*>(a.bias)[channel]);
  if (a.relu && value < 0) value = 0;  // NaN stays
  static_cast<T*>(a.out)[((int64_t(tile.image) * a.p.out_height + y) * a.p.out_width + x) * kChannels + channel] =
      Math::round(value);
}

// The longest run: each warp 32 pixels, all of the run's columns.
template <typename Math>
__device__ __forceinline__ void multiply_long(const Arguments& a, const Tile& tile, uint32_t base) {
  const int lane = threadIdx.x % 32, first_pixel = threadIdx.x / 32 * 32;
  float sums[2][kTiles][4] = {};
  uint32_t pixels[2];
#pragma unroll
  for (int m = 0; m < 2; ++m)
    pixels[m] = base + a.patch.slot_of(first_pixel + 16 * m + lane % 16) * kPitch + lane / 16 * kVectorBytes;
#pragma unroll 1
  for (int tap = 0; tap < int(kTaps); ++tap) {
    const int offset = tap_offset(a.patch, tap, a.dilation_h, a.dilation_w);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      typename Math::A of[2];
#pragma unroll
      for (int m = 0; m < 2; ++m) of[m] = pixels_at<Math>(pixels[m] + offset * kPitch + step * kStepBytes);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        if (a.first_tile + j >= a.end_tile) continue;
        const typename Math::B b = filters_of<Math>(a, a.first_tile + j, tap, step);
#pragma unroll
        for (int m = 0; m < 2; ++m) Math::multiply(sums[m][j], of[m], b);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    if (a.first_tile + j >= a.end_tile) continue;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        store<Math>(a, tile, first_pixel + 16 * m + 8 * (i / 2) + lane / 4,
                    (a.first_tile + j) * kColumns + lane % 4 * 2 + i % 2, sums[m][j][i]);
  }
}

// Eight channels and the three taps of a row at every pixel of the patch: products[tap][slot][channel].
template <typename Math>
__device__ __forceinline__ void multiply_row(const Arguments& a, int tile, int row, uint32_t base, float* products,
                                             int slots) {
  const int lane = threadIdx.x % 32;
  typename Math::B filters[kRowTaps][kSteps];
#pragma unroll
  for (int tap = 0; tap < kRowTaps; ++tap)
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
      filters[tap][step] = filters_of<Math>(a, tile, row * kRowTaps + tap, step);
#pragma unroll 1
  for (int first = threadIdx.x / 32 * 16; first < slots; first += kWarps * 16) {
    float sums[kRowTaps][4] = {};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const typename Math::A of =
          pixels_at<Math>(base + (first + lane % 16) * kPitch + lane / 16 * kVectorBytes + step * kStepBytes);
#pragma unroll
      for (int tap = 0; tap < kRowTaps; ++tap) Math::multiply(sums[tap], of, filters[tap][step]);
    }
#pragma unroll
    for (int tap = 0; tap < kRowTaps; ++tap)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<float2*>(products + ((tap * slots) + first + 8 * half + lane / 4) * kColumns + lane % 4 * 2) =
            make_float2(sums[tap][2 * half], sums[tap][2 * half + 1]);
  }
}

template <typename Math>
__global__ void __launch_bounds__(kThreads) fused_kernel(const Arguments a) {
  extern __shared__ __align__(16) char memory[];
  const Tile tile = locate_tile(a.patch, blockIdx.x);
  const uint32_t base = shared_address(memory);
  const int slots = (a.patch.slots + 15) / 16 * 16;
  float* products = reinterpret_cast<float*>(memory + slots * kPitch);
  load_patch(a, tile, base);
  wait_copies<0>();
  __syncthreads();
  multiply_long<Math>(a, tile, base);
  const int channel = threadIdx.x % kColumns;
  for (int group = 0; group < kTiles; ++group) {
    if (group >= a.first_tile && group < a.end_tile) continue;
    const int dilation_h = a.dilations[3 * (group * kColumns + channel)];
    const int dilation_w = a.dilations[3 * (group * kColumns + channel) + 1];
    float sums[kItems] = {};
    for (int row = 0; row < 3; ++row) {
      multiply_row<Math>(a, group, row, base, products, slots);
      __syncthreads();
      for (int tap = 0; tap < kRowTaps; ++tap) {
        const int offset = tap_offset(a.patch, row * kRowTaps + tap, dilation_h, dilation_w);
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
          const int pixel = threadIdx.x / kColumns + i * (kThreads / kColumns);
          sums[i] += products[(tap * slots + a.patch.slot_of(pixel) + offset) * kColumns + channel];
        }
      }
      __syncthreads();  // the next row overwrites the products
    }
#pragma unroll
    for (int i = 0; i < kItems; ++i)
      store<Math>(a, tile, threadIdx.x / kColumns + i * (kThreads / kColumns), group * kColumns + channel, sums[i]);
  }
}

template <typename Math, typename T>
at::Tensor launch(const Problem& p, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                  Pattern pattern, bool relu) {
  if (std::max(max_dilation(pattern, 0), max_dilation(pattern, 1)) > kMaxDilation) return {};
  const Patch patch = fused_patch(p.out_height, p.out_width, pattern);
  const int64_t slots = round_up(patch.slots, 16), tiles = int64_t(p.batch) * patch.tiles();
  const int64_t bytes = slots * (kPitch + kRowTaps * kColumns * int64_t(sizeof(float)));
  if (bytes > current_device().shared_memory || tiles > INT_MAX) return {};
  const at::Tensor x = channels_last(input);
  const auto stream = c10::cuda::getCurrentCUDAStream();
  at::Tensor fragments = at::empty({kFragments * kFragmentElements}, weight.options());
  pack_kernel<T><<<kFragments * kFragmentElements / kThreads, kThreads, 0, stream>>>(
      {weight.const_data_ptr<T>(),
       {weight.stride(0), weight.stride(1), weight.stride(2), weight.stride(3)},
       fragments.mutable_data_ptr<T>()});
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  const kn2row::Range run = kn2row::longest_run(pattern, p.groups);
  at::Tensor out =
      at::empty({p.batch, p.out_channels, p.out_height, p.out_width}, x.options(), at::MemoryFormat::ChannelsLast);
  const Arguments a{p,
                    patch,
                    x.const_data_ptr(),
                    bias.defined() ? bias.const_data_ptr() : nullptr,
                    reinterpret_cast<const uint2*>(fragments.const_data_ptr()),
                    channel_table(p, pattern).device,
                    static_cast<int>(run.begin / kColumns),
                    static_cast<int>(run.end / kColumns),
                    static_cast<int>(run.dilation_h),
                    static_cast<int>(run.dilation_w),
                    out.mutable_data_ptr(),
                    relu};
  C10_CUDA_CHECK(
      cudaFuncSetAttribute(fused_kernel<Math>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  fused_kernel<Math><<<static_cast<unsigned>(tiles), kThreads, bytes, stream>>>(a);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

at::Tensor forward_fused(const Problem& p, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         Pattern pattern, bool relu) {
  const bool fits = p.in_channels == kChannels && p.out_channels == kChannels && p.groups == 1 && p.stride == 1;
  if (!fits || current_device().major < 8) return {};
  if (x.scalar_type() == at::kHalf) return launch<Float16, at::Half>(p, x, weight, bias, pattern, relu);
  if (x.scalar_type() == at::kBFloat16) return launch<BFloat16, at::BFloat16>(p, x, weight, bias, pattern, relu);
  return {};
}

}  // namespace icconv_mm::cuda
