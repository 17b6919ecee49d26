// The fused kernel with Hopper's warpgroup products (wgmma): all filters lie in shared memory, from where one
// instruction reads them for 64 pixels, so that a pixel is loaded once for all columns of the longest run. Blocks stay
// and go from tile to tile, as the filters take long to load. Builds without sm_90a, and other architectures, hold an
// empty kernel. It has not run on a GPU.
#include "../../inception_conv/fused/warpgroups.h"

#include <algorithm>
#include <climits>

#include "fused.cuh"

namespace icconv_mm::cuda {
namespace {

// Four sums of each of eight columns, as operands of an instruction.
#define ICCONV_MM_SUMS(j) "+f"(sums.of[j][0]), "+f"(sums.of[j][1]), "+f"(sums.of[j][2]), "+f"(sums.of[j][3])
// sums += pixels x filters. `numbers` are those of the sums' operands, `rest` of the pixels', the filters', and that
// both are taken as they are (not negated, not transposed), and added to what is there.
#define ICCONV_MM_WGMMA(columns, type, numbers, rest, ...)                                                         \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" numbers "}, " rest ";\n" \
               : __VA_ARGS__                                                                                       \
               : "r"(of.r[0]), "r"(of.r[1]), "r"(of.r[2]), "r"(of.r[3]), "l"(filters))
#define ICCONV_MM_TO_11 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11"
#define ICCONV_MM_TO_23 ICCONV_MM_TO_11 ",%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23"
#define ICCONV_MM_TO_31 ICCONV_MM_TO_23 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define ICCONV_MM_WGMMA_OF(type)                                                                                    \
  if constexpr (kWide == 3)                                                                                         \
    ICCONV_MM_WGMMA(24, type, ICCONV_MM_TO_11, "{%12,%13,%14,%15}, %16, 1, 1, 1, 0", ICCONV_MM_SUMS(0),             \
                    ICCONV_MM_SUMS(1), ICCONV_MM_SUMS(2));                                                          \
  else if constexpr (kWide == 6)                                                                                    \
    ICCONV_MM_WGMMA(48, type, ICCONV_MM_TO_23, "{%24,%25,%26,%27}, %28, 1, 1, 1, 0", ICCONV_MM_SUMS(0),             \
                    ICCONV_MM_SUMS(1), ICCONV_MM_SUMS(2), ICCONV_MM_SUMS(3), ICCONV_MM_SUMS(4), ICCONV_MM_SUMS(5)); \
  else                                                                                                              \
    ICCONV_MM_WGMMA(64, type, ICCONV_MM_TO_31, "{%32,%33,%34,%35}, %36, 1, 1, 1, 0", ICCONV_MM_SUMS(0),             \
                    ICCONV_MM_SUMS(1), ICCONV_MM_SUMS(2), ICCONV_MM_SUMS(3), ICCONV_MM_SUMS(4), ICCONV_MM_SUMS(5),  \
                    ICCONV_MM_SUMS(6), ICCONV_MM_SUMS(7))

// What warpgroups.h asks of a machine, by one thread of the GPU.
template <typename Math>
struct Lane {
  struct Pixels {
    uint32_t r[4];
  };
  template <int kWide>
  struct Sums {
    float of[kWide][4];
  };

  template <typename Address>
  __device__ void load(Pixels& of, const Address& address) const {
    load_matrices(of.r, address(threadIdx.x % 32));
  }
  __device__ void begin() const { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
  template <int kWide>
  __device__ void multiply(Sums<kWide>& sums, const Pixels& of, uint64_t filters) const {
    static_assert(kWide == 3 || kWide == 6 || kWide == 8);
    if constexpr (std::is_same_v<Math, Float16>) {
      ICCONV_MM_WGMMA_OF("f16");
    } else {
      ICCONV_MM_WGMMA_OF("bf16");
    }
  }
  __device__ void end() const {
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n" ::: "memory");
  }
  // No sum is read before it is there: the compiler does not know what `end` waits for.
  template <int kWide>
  __device__ void settle(Sums<kWide>& sums) const {
#pragma unroll
    for (int j = 0; j < kWide; ++j) asm volatile("" : ICCONV_MM_SUMS(j)::"memory");
  }
  template <int kWide, typename Use>
  __device__ void each(const Sums<kWide>& sums, const Use& use) const {
#pragma unroll
    for (int j = 0; j < kWide; ++j)
#pragma unroll
      for (int i = 0; i < 4; i += 2) use(j, sum_place(threadIdx.x % 32, i), sums.of[j][i], sums.of[j][i + 1]);
  }
};

__device__ __forceinline__ void load_filters(const Arguments& a, uint32_t base) {
  const char* filters = static_cast<const char*>(a.filters);
  for (int i = threadIdx.x * kVectorBytes; i < kFilterBytes; i += kThreads * kVectorBytes)
    copy_async(base + i, filters + i, true);
}

template <typename Math>
__global__ void __launch_bounds__(kThreads) fused_wgmma_kernel(const Arguments a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(128) char memory[];
  __shared__ int dilations[kChannels][2];
  const int slots = (a.patch.slots + kRowsOfGroup - 1) / kRowsOfGroup * kRowsOfGroup;
  const Memory at{shared_address(memory), shared_address(memory) + kFilterBytes};
  float* products = reinterpret_cast<float*>(memory + kFilterBytes + slots * kPixelBytes);
  const int warp = threadIdx.x / 32, column = threadIdx.x % kColumns;
  const Lane<Math> lane;
  if (threadIdx.x < 2 * kChannels)
    dilations[threadIdx.x / 2][threadIdx.x % 2] = a.dilations[threadIdx.x / 2 * 3 + threadIdx.x % 2];
  load_filters(a, at.filters);
  for (int index = blockIdx.x; index < a.p.batch * a.patch.tiles(); index += gridDim.x) {
    const Tile tile = locate_tile(a.patch, index);
    load_patch(a, tile, at.pixels);
    wait_copies<0>();
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");  // wgmma reads what these copies wrote
    __syncthreads();
    multiply_run(lane, at, a.patch, a.run, warp, [&](int pixel, int channel, float sum, float next) {
      store<Math>(a, tile, pixel, channel, sum);
      store<Math>(a, tile, pixel, channel + 1, next);
    });
    for (int group = 0; group < kTiles; ++group) {
      if (group >= a.run.first_tile && group < a.run.end_tile) continue;
      const int channel = group * kColumns + column;
      float sums[kItems] = {};
      for (int row = 0; row < 3; ++row) {
        multiply_row(lane, at, slots, group, row, warp, [&](int tap, int slot, int first, float sum, float next) {
          *reinterpret_cast<float2*>(products + product_index(slots, tap, slot, first)) = make_float2(sum, next);
        });
        __syncthreads();
        add_row(a, row, dilations[channel][0], dilations[channel][1], products, slots, sums);
        __syncthreads();  // the next row overwrites the products
      }
      store_items<Math>(a, tile, channel, sums);
    }
    __syncthreads();  // the next tile overwrites the pixels
  }
#endif
}

// Registers of the longest run's sums: a kernel with fewer is an empty one.
constexpr int kSums = kProductsOfWarp * kTiles * 4;

struct Extent {
  Patch patch;
  int64_t tiles, bytes;  // of shared memory
};

Extent extent_of(const Geometry32& p, Pattern pattern) {
  const Patch patch = fused_patch(p.out_height, p.out_width, pattern);
  const int64_t slots = round_up(patch.slots, kRowsOfGroup);
  return {patch, int64_t(p.batch) * patch.tiles(),
          kFilterBytes + slots * (kPixelBytes + kRowTaps * kColumns * int64_t(sizeof(float)))};
}

template <typename Math, typename T>
at::Tensor launch(const Geometry32& p, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                  Pattern pattern, bool relu) {
  const Extent extent = extent_of(p, pattern);
  const int bytes = static_cast<int>(extent.bytes);
  const Launch prepared = prepare<T, true>(p, extent.patch, input, weight, bias, pattern, relu);
  C10_CUDA_CHECK(cudaFuncSetAttribute(fused_wgmma_kernel<Math>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(extent.tiles, current_device().processors));
  fused_wgmma_kernel<Math><<<blocks, kThreads, bytes, prepared.stream>>>(prepared.arguments);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return prepared.out;
}

}  // namespace

std::string fused_wgmma_refusal(const Geometry32& p, at::ScalarType dtype, Pattern pattern) {
  const std::string kernel = "the kernel 'fused_wgmma' ";
  const Device& device = current_device();
  if (device.major != 9 || device.minor != 0)
    return kernel + "needs a GPU of compute capability 9.0, this one has " + std::to_string(device.major) + "." +
           std::to_string(device.minor);
  cudaFuncAttributes found{};
  C10_CUDA_CHECK(cudaFuncGetAttributes(&found, fused_wgmma_kernel<BFloat16>));
  if (found.numRegs < kSums) return kernel + "is not in this build, which TORCH_CUDA_ARCH_LIST=9.0a would make";
  const bool fits = p.in_channels == kChannels && p.out_channels == kChannels && p.groups == 1 && p.stride == 1;
  const bool narrow = dtype == at::kHalf || dtype == at::kBFloat16;
  const bool near = std::max(max_dilation(pattern, 0), max_dilation(pattern, 1)) <= kMaxDilation;
  if (!fits || !narrow || !near || extent_of(p, pattern).tiles > INT_MAX / 2)
    return kernel + "takes 64 channels without groups, stride 1, dilations up to " + std::to_string(kMaxDilation) +
           ", float16 and bfloat16, got " + std::to_string(p.in_channels) + " -> " + std::to_string(p.out_channels) +
           " channels, stride " + std::to_string(p.stride) + " and " + c10::toString(dtype);
  const int64_t bytes = extent_of(p, pattern).bytes + static_cast<int64_t>(found.sharedSizeBytes);
  if (bytes > device.shared_memory)
    return kernel + "needs " + std::to_string(bytes) +
           " bytes of shared memory for these dilations, a block may have " + std::to_string(device.shared_memory);
  return {};
}

at::Tensor forward_fused_wgmma(const Geometry32& p, const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& bias, Pattern pattern, bool relu) {
  return x.scalar_type() == at::kHalf ? launch<Float16, at::Half>(p, x, weight, bias, pattern, relu)
                                      : launch<BFloat16, at::BFloat16>(p, x, weight, bias, pattern, relu);
}

}  // namespace icconv_mm::cuda
