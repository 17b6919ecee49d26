// One pass for 64 channels in 16 bits at stride 1: a tile's pixels with all they read lie in shared memory once, as
// 16 x 16 pixels and the border of the largest dilation. The longest run is multiplied tap by tap, as everywhere. The
// channels of the short runs come eight at a time, three taps each as columns of one product over the whole patch, as
// kn2row does it; shifted additions out of shared memory then put each channel's taps together. So a pixel is loaded
// once for 24 columns, and not once for every eight columns and tap.
#include "fused.cuh"

namespace icconv_mm::cuda {
namespace {

template <typename Math>
__device__ __forceinline__ typename Math::B filters_of(const Arguments& a, int tile, int tap, int step) {
  const auto* fragment = static_cast<const uint2*>(a.filters) + fragment_of(tile, tap, step) * 32;
  const uint2 words = __ldg(fragment + threadIdx.x % 32);
  return Math::make_b(words.x, words.y);
}

template <typename Math>
__device__ __forceinline__ typename Math::A pixels_at(uint32_t address) {
  uint32_t words[4];
  load_matrices(words, address);
  return Math::make_a(words);
}

// The longest run: each warp 32 pixels, all of the run's columns.
template <typename Math>
__device__ __forceinline__ void multiply_long(const Arguments& a, const Tile& tile, uint32_t base) {
  const int lane = threadIdx.x % 32, first_pixel = threadIdx.x / 32 * 32;
  float sums[2][kTiles][4] = {};
  uint32_t pixels[2];
#pragma unroll
  for (int m = 0; m < 2; ++m)
    pixels[m] = base + a.patch.slot_of(first_pixel + 16 * m + lane % 16) * kPixelBytes + lane / 16 * kVectorBytes;
#pragma unroll 1
  for (int tap = 0; tap < int(kTaps); ++tap) {
    const int offset = tap_offset(a.patch, tap, a.run.dilation_h, a.run.dilation_w);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      typename Math::A of[2];
#pragma unroll
      for (int m = 0; m < 2; ++m) of[m] = pixels_at<Math>(pixels[m] + offset * kPixelBytes + step * kStepBytes);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        if (a.run.first_tile + j >= a.run.end_tile) continue;
        const typename Math::B b = filters_of<Math>(a, a.run.first_tile + j, tap, step);
#pragma unroll
        for (int m = 0; m < 2; ++m) Math::multiply(sums[m][j], of[m], b);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    if (a.run.first_tile + j >= a.run.end_tile) continue;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        store<Math>(a, tile, first_pixel + 16 * m + 8 * (i / 2) + lane / 4,
                    (a.run.first_tile + j) * kColumns + lane % 4 * 2 + i % 2, sums[m][j][i]);
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
          pixels_at<Math>(base + (first + lane % 16) * kPixelBytes + lane / 16 * kVectorBytes + step * kStepBytes);
#pragma unroll
      for (int tap = 0; tap < kRowTaps; ++tap) Math::multiply(sums[tap], of, filters[tap][step]);
    }
#pragma unroll
    for (int tap = 0; tap < kRowTaps; ++tap)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<float2*>(products + product_index(slots, tap, first + 8 * half + lane / 4, lane % 4 * 2)) =
            make_float2(sums[tap][2 * half], sums[tap][2 * half + 1]);
  }
}

template <typename Math>
__global__ void __launch_bounds__(kThreads) fused_kernel(const Arguments a) {
  extern __shared__ __align__(16) char memory[];
  const Tile tile = locate_tile(a.patch, blockIdx.x);
  const uint32_t base = shared_address(memory);
  const int slots = (a.patch.slots + 15) / 16 * 16;
  float* products = reinterpret_cast<float*>(memory + slots * kPixelBytes);
  load_patch(a, tile, base);
  wait_copies<0>();
  __syncthreads();
  multiply_long<Math>(a, tile, base);
  const int channel = threadIdx.x % kColumns;
  for (int group = 0; group < kTiles; ++group) {
    if (group >= a.run.first_tile && group < a.run.end_tile) continue;
    const int dilation_h = a.dilations[3 * (group * kColumns + channel)];
    const int dilation_w = a.dilations[3 * (group * kColumns + channel) + 1];
    float sums[kItems] = {};
    for (int row = 0; row < 3; ++row) {
      multiply_row<Math>(a, group, row, base, products, slots);
      __syncthreads();
      add_row(a, row, dilation_h, dilation_w, products, slots, sums);
      __syncthreads();  // the next row overwrites the products
    }
    store_items<Math>(a, tile, group * kColumns + channel, sums);
  }
}

template <typename Math, typename T>
at::Tensor launch(const Cut& cut, const Geometry32& p, const at::Tensor& input, const at::Tensor& weight,
                  const at::Tensor& bias, Pattern pattern, bool relu) {
  const Launch prepared = prepare<T, false>(p, cut.patch, input, weight, bias, pattern, relu);
  C10_CUDA_CHECK(cudaFuncSetAttribute(fused_kernel<Math>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(cut.bytes)));
  fused_kernel<Math><<<static_cast<unsigned>(cut.tiles), kThreads, cut.bytes, prepared.stream>>>(prepared.arguments);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return prepared.out;
}

}  // namespace

Cut fused_cut(const Geometry32& p, at::ScalarType dtype, Pattern pattern) {
  const bool fits = p.in_channels == kChannels && p.out_channels == kChannels && p.groups == 1 && p.stride == 1;
  if (!fits || current_device().major < 8 || (dtype != at::kHalf && dtype != at::kBFloat16)) return {};
  if (std::max(max_dilation(pattern, 0), max_dilation(pattern, 1)) > kMaxDilation) return {};
  const Patch patch = fused_patch(p.out_height, p.out_width, pattern);
  const int64_t slots = round_up(patch.slots, 16), tiles = int64_t(p.batch) * patch.tiles();
  const int64_t bytes = slots * (kPixelBytes + kRowTaps * kColumns * int64_t(sizeof(float)));
  if (bytes > current_device().shared_memory || tiles > INT_MAX) return {};
  return {patch, tiles, nullptr, bytes, bytes};
}

at::Tensor forward_fused(const Cut& cut, const Geometry32& p, const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& bias, Pattern pattern, bool relu) {
  return x.scalar_type() == at::kHalf ? launch<Float16, at::Half>(cut, p, x, weight, bias, pattern, relu)
                                      : launch<BFloat16, at::BFloat16>(cut, p, x, weight, bias, pattern, relu);
}

}  // namespace icconv_mm::cuda
