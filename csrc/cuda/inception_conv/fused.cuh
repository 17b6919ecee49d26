// What the fused kernels share: a tile's pixels in shared memory, shifted additions, results; and their arguments.
#pragma once

#include "../../inception_conv/fused/fused.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "../tile.cuh"
#include "shares.h"

namespace icconv_mm::cuda {
namespace {  // each source has kernels of its own

using namespace fused;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kItems = kTileSide * kTileSide * kColumns / kThreads;  // of shifted additions, per thread

struct Arguments {
  Geometry32 p;
  Patch patch;
  const void *x, *bias;
  const void* filters;   // as PackTiles orders them
  const int* dilations;  // [channel][3]: of the height, of the width, and the group
  LongRun run;
  void* out;
  bool relu;
};

template <typename Pack>
__global__ void __launch_bounds__(kThreads) pack_kernel(const Pack pass) {
  pass(blockIdx.x * kThreads + threadIdx.x);
}

__device__ __forceinline__ void load_patch(const Arguments& a, const Tile& tile, uint32_t base) {
  const char* image = static_cast<const char*>(a.x) + int64_t(tile.image) * a.p.height * a.p.width * 2 * kChannels;
  constexpr int kVectors = 2 * kChannels / kVectorBytes;
  for (int i = threadIdx.x; i < a.patch.slots * kVectors; i += kThreads) {
    const int slot = i / kVectors, vector = i % kVectors;
    const int pixel = source_pixel(a.patch, tile, slot, a.p.height, a.p.width);
    const int64_t from = pixel < 0 ? 0 : int64_t(pixel) * 2 * kChannels + vector * kVectorBytes;
    copy_async(base + slot * kPixelBytes + vector * kVectorBytes, image + from, pixel >= 0);
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

// Adds the three taps of a row to a thread's pixels of a channel, out of the products at all slots.
__device__ __forceinline__ void add_row(const Arguments& a, int row, int dilation_h, int dilation_w,
                                        const float* products, int slots, float (&sums)[kItems]) {
  for (int tap = 0; tap < kRowTaps; ++tap) {
    const int offset = tap_offset(a.patch, row * kRowTaps + tap, dilation_h, dilation_w);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int pixel = threadIdx.x / kColumns + i * (kThreads / kColumns);
      sums[i] += products[product_index(slots, tap, a.patch.slot_of(pixel) + offset, threadIdx.x % kColumns)];
    }
  }
}

template <typename Math>
__device__ __forceinline__ void store_items(const Arguments& a, const Tile& tile, int channel,
                                            const float (&sums)[kItems]) {
#pragma unroll
  for (int i = 0; i < kItems; ++i)
    store<Math>(a, tile, threadIdx.x / kColumns + i * (kThreads / kColumns), channel, sums[i]);
}

// The arguments of a launch, and the tensors that must outlive it.
struct Launch {
  Arguments arguments;
  at::Tensor x, filters, out;
  c10::cuda::CUDAStream stream;
};

template <typename T, bool kCores>
Launch prepare(const Geometry32& p, const Patch& patch, const at::Tensor& input, const at::Tensor& weight,
               const at::Tensor& bias, Pattern pattern, bool relu) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor x = channels_last(input);
  at::Tensor filters = at::empty({kFragments * kFragmentElements}, weight.options());
  const PackTiles<T, kCores> pass{weight.const_data_ptr<T>(),
                                  {weight.stride(0), weight.stride(1), weight.stride(2), weight.stride(3)},
                                  filters.mutable_data_ptr<T>()};
  pack_kernel<<<kFragments * kFragmentElements / kThreads, kThreads, 0, stream>>>(pass);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  at::Tensor out =
      at::empty({p.batch, p.out_channels, p.out_height, p.out_width}, x.options(), at::MemoryFormat::ChannelsLast);
  const Arguments arguments{p,
                            patch,
                            x.const_data_ptr(),
                            bias.defined() ? bias.const_data_ptr() : nullptr,
                            filters.const_data_ptr(),
                            channel_table(p, pattern).device,
                            long_run(pattern),
                            out.mutable_data_ptr(),
                            relu};
  return {arguments, x, filters, out, stream};
}

}  // namespace
}  // namespace icconv_mm::cuda
