// Gradient of the input in gather form: rows are 256 input pixels, columns 64 input channels, the reduction goes over
// output channels and taps. Half a reduction step is 16 bytes of output channels; where a run ends inside them, they
// are taken once per dilation, with the filters of the others as zeros. All runs add up in fp32 registers, in a fixed
// order.
//
// With stride s, input pixel i meets output pixel (i - offset) / s where that is whole. So a tile takes every s-th
// pixel (a remainder per axis), for which each tap either always or never meets an output.
#include "../tile.cuh"
#include "arithmetic.cuh"
#include "shares.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace icconv_mm::cuda {
namespace {

constexpr int kPixels = 256;
constexpr int kThreads = 256, kWarpsN = 2;  // 4 x 2 warps, each 64 pixels x 32 channels
constexpr int kWarpM = 4, kWarpN = 4;
constexpr int kColumns = kWarpsN * kWarpN * 8;
constexpr int kPitch = kStepBytes + kVectorBytes;
constexpr int kMaxSteps = 8;     // of a chunk: 16 channels of as many dilations, two in each
constexpr int kChunkFields = 2;  // first step, steps
constexpr int kUnitFields = 4;   // dilation_h, dilation_w, vector, mask: two units in a step
constexpr int kSkip = -1;        // offset of a tap that meets no output

struct Arguments {
  Geometry32 p;
  Patch patch;
  const void *grad, *weight;
  void* out;
  const int* table;
  int chunks;  // of a group
  int stages, stage_bytes;
};

struct Shared {
  int offsets[2][kMaxSteps][kTaps][2];  // per stage, step, tap and half: bytes from a pixel, or kSkip
  int units[2][kMaxSteps][2];           // vector * 256 + mask
  int steps[2];
};

// Bytes of a row of filters, chosen so that the rows which a warp reads at once lie in different banks.
template <typename Math>
constexpr int kFilterPitch =
    kColumns * static_cast<int>(sizeof(typename Math::Element)) + (sizeof(typename Math::Element) == 2 ? 16 : 32);
template <typename Math>
constexpr int kFilterBytes = kTaps * kFilterPitch<Math>;  // of one output channel

struct Position {
  int image, group, column, remainder_h, remainder_w;
};

// Bytes from a tile pixel's slot to the one that a tap meets, or kSkip.
__device__ int tap_offset(const Arguments& a, const Position& at, const int* unit, int tap) {
  const int down = at.remainder_h - (tap / 3 - 1) * unit[0], right = at.remainder_w - (tap % 3 - 1) * unit[1];
  if (down % a.p.stride != 0 || right % a.p.stride != 0) return kSkip;
  return kPitch * a.patch.offset(a.patch.before_h + down / a.p.stride, a.patch.before_w + right / a.p.stride) +
         unit[2] * kVectorBytes;
}

template <typename Math>
__device__ void load_stage(const Arguments& a, const Position& at, Shared& shared, const uint32_t* sources,
                           uint32_t base, int chunk) {
  using T = typename Math::Element;
  const int stage = chunk % a.stages;
  const uint32_t target = base + stage * a.stage_bytes;
  const int first = at.group * a.p.group_out + chunk * kStep<Math>, left = a.p.group_out - chunk * kStep<Math>;
  const T* pixels =
      static_cast<const T*>(a.grad) + int64_t(at.image) * a.p.out_height * a.p.out_width * a.p.out_channels + first;
  load_pairs(target, kPitch, sources, a.patch.slots, pixels, left / kVector<Math>);
  const uint32_t filter_target = target + (a.patch.slots + 1) * kPitch;  // + 1: the slot of zeros
  constexpr int kRowVectors = kColumns / kVector<Math>;  // threads keep their vector: kThreads is a multiple
  const int vector = threadIdx.x % kRowVectors, column = at.column + vector * kVector<Math>;
  const T* filters = static_cast<const T*>(a.weight) + int64_t(first) * kTaps * a.p.group_in;
  for (int row = threadIdx.x / kRowVectors; row < kStep<Math> * kTaps; row += kThreads / kRowVectors) {
    const bool valid = row < left * kTaps && column < a.p.group_in;  // row: channel and tap, as in memory
    copy_async(filter_target + row * kFilterPitch<Math> + vector * kVectorBytes,
               valid ? filters + int64_t(row) * a.p.group_in + column : filters, valid);
  }
  const int* entry = a.table + (at.group * a.chunks + chunk) * kChunkFields;
  const int* units = a.table + entry[0] * 2 * kUnitFields;
  for (int i = threadIdx.x; i < entry[1] * kTaps * 2; i += kThreads) {
    const int half = i % 2, tap = i / 2 % kTaps, step = i / (2 * kTaps);
    const int* unit = units + (step * 2 + half) * kUnitFields;
    shared.offsets[stage][step][tap][half] = tap_offset(a, at, unit, tap);
    if (tap == 0) shared.units[stage][step][half] = unit[2] * 256 + unit[3];
  }
  if (threadIdx.x == 0) shared.steps[stage] = entry[1];
}

// The filter fragments of 32 columns for one step and tap. A masked channel reads zeros.
template <typename Math>
struct Filters {
  uint32_t low, high;  // addresses; 16-bit types use the first

  __device__ Filters(uint32_t filters, uint32_t zeros, const int (&units)[2], int column) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(typename Math::Element) == 2) {
      low = row(filters, zeros, units[lane / 8 % 2], lane % 8) + column * 2 + lane / 16 * 16;
      high = 0;
    } else {
      low = row(filters, zeros, units[0], lane % 4) + (column + lane / 4) * 4;
      high = row(filters, zeros, units[1], lane % 4) + (column + lane / 4) * 4;
    }
  }
  static __device__ uint32_t row(uint32_t filters, uint32_t zeros, int unit, int channel) {
    return unit >> channel & 1 ? filters + (unit / 256 * kVector<Math> + channel) * kFilterBytes<Math> : zeros;
  }
  __device__ void load(int tap, typename Math::B (&b)[kWarpN]) const {
    const uint32_t at = tap * kFilterPitch<Math>;
#pragma unroll
    for (int n = 0; n < kWarpN; n += 2) {
      uint32_t w[4];
      if constexpr (sizeof(typename Math::Element) == 2) {
        load_matrices_transposed(w, low + at + n * 16);
      } else {
        w[0] = load_word(low + at + n * 32), w[1] = load_word(high + at + n * 32);
        w[2] = load_word(low + at + n * 32 + 32), w[3] = load_word(high + at + n * 32 + 32);
      }
      b[n] = Math::make_b(w[0], w[1]), b[n + 1] = Math::make_b(w[2], w[3]);
    }
  }
};

template <typename Math>
__device__ void multiply_tap(const uint32_t (&pixels)[kWarpM], const Filters<Math>& rows, int tap,
                             float (&sums)[kWarpM][kWarpN][4]) {
  typename Math::A a[kWarpM];
  typename Math::B b[kWarpN];
#pragma unroll
  for (int m = 0; m < kWarpM; ++m) {
    uint32_t words[4];
    load_matrices(words, pixels[m]);
    a[m] = Math::make_a(words);
  }
  rows.load(tap, b);
#pragma unroll
  for (int n = 0; n < kWarpN; ++n)
#pragma unroll
    for (int m = 0; m < kWarpM; ++m) Math::multiply(sums[m][n], a[m], b[n]);
}

template <typename Math>
__device__ void multiply_stage(const Shared& shared, int stage, bool strided, const uint32_t (&pixels)[kWarpM],
                               uint32_t zero_slot, uint32_t filters, uint32_t zeros, int column,
                               float (&sums)[kWarpM][kWarpN][4]) {
  const int half = threadIdx.x % 32 / 16, steps = shared.steps[stage];
  for (int step = 0; step < steps; ++step) {
    const Filters<Math> rows(filters, zeros, shared.units[stage][step], column);
    const int (&offsets)[kTaps][2] = shared.offsets[stage][step];
    uint32_t at[kWarpM];
    if (!strided) {  // every tap meets an output: straight on
#pragma unroll 3
      for (int tap = 0; tap < kTaps; ++tap) {
        const int offset = offsets[tap][half];
#pragma unroll
        for (int m = 0; m < kWarpM; ++m) at[m] = pixels[m] + offset;
        multiply_tap<Math>(at, rows, tap, sums);
      }
    } else {
#pragma unroll 1
      for (int tap = 0; tap < kTaps; ++tap) {
        if (offsets[tap][0] == kSkip && offsets[tap][1] == kSkip) continue;
        const int offset = offsets[tap][half];
#pragma unroll
        for (int m = 0; m < kWarpM; ++m) at[m] = offset == kSkip ? zero_slot : pixels[m] + offset;
        multiply_tap<Math>(at, rows, tap, sums);
      }
    }
  }
}

template <typename Math>
__device__ void store(const Arguments& a, const Position& at, const Tile& tile, char* memory, int first_pixel,
                      int column, const float (&sums)[kWarpM][kWarpN][4]) {
  using T = typename Math::Element;
  constexpr int kVec = kVector<Math>, kRow = kColumns + kVec;
  const int lane = threadIdx.x % 32;
  T* staged = reinterpret_cast<T*>(memory);
#pragma unroll
  for (int m = 0; m < kWarpM; ++m)
#pragma unroll
    for (int n = 0; n < kWarpN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        staged[(first_pixel + 16 * m + i / 2 * 8 + lane / 4) * kRow + column + n * 8 + lane % 4 * 2 + i % 2] =
            Math::round(sums[m][n][i]);
  __syncthreads();
  constexpr int kVectors = kColumns / kVec;
  for (int i = threadIdx.x; i < kPixels * kVectors; i += kThreads) {
    const int pixel = i / kVectors, channel = at.column + i % kVectors * kVec;
    const int y = (tile.y + pixel / a.patch.tile_w) * a.p.stride + at.remainder_h;
    const int x = (tile.x + pixel % a.patch.tile_w) * a.p.stride + at.remainder_w;
    if (pixel >= a.patch.tile_h * a.patch.tile_w || y >= a.p.height || x >= a.p.width || channel >= a.p.group_in)
      continue;
    T* out = static_cast<T*>(a.out) + ((int64_t(at.image) * a.p.height + y) * a.p.width + x) * a.p.in_channels +
             at.group * a.p.group_in + channel;
    *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(staged + pixel * kRow + i % kVectors * kVec);
  }
}

template <typename Math>
__global__ void __launch_bounds__(kThreads, 2) grad_input_kernel(const Arguments a) {
  extern __shared__ __align__(16) char memory[];
  __shared__ Shared shared;
  char* zeros = memory + a.stages * a.stage_bytes;
  uint32_t* sources = reinterpret_cast<uint32_t*>(zeros + kFilterBytes<Math>);
  const int blocks = (a.p.group_in + kColumns - 1) / kColumns;
  const Tile tile = locate_tile(a.patch, blockIdx.x);
  const Position at{tile.image, static_cast<int>(blockIdx.y) / blocks, static_cast<int>(blockIdx.y) % blocks * kColumns,
                    static_cast<int>(blockIdx.z) / a.p.stride, static_cast<int>(blockIdx.z) % a.p.stride};
  find_sources(sources, a.patch, tile, a.p.out_height, a.p.out_width, a.p.out_channels / kVector<Math>);
  for (int i = threadIdx.x; i < kFilterBytes<Math> / 4; i += kThreads) reinterpret_cast<int*>(zeros)[i] = 0;
  for (int i = threadIdx.x; i < a.stages * kPitch / 4; i += kThreads)  // the slot of zeros in each stage
    reinterpret_cast<int*>(memory + i / (kPitch / 4) * a.stage_bytes + a.patch.slots * kPitch)[i % (kPitch / 4)] = 0;
  __syncthreads();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_pixel = warp / kWarpsN * 16 * kWarpM, column = warp % kWarpsN * 8 * kWarpN;
  const uint32_t base = shared_address(memory);
  const int area = a.patch.tile_h * a.patch.tile_w;
  uint32_t pixels[kWarpM];
#pragma unroll
  for (int m = 0; m < kWarpM; ++m)
    pixels[m] = base + a.patch.slot_of(min(first_pixel + 16 * m + lane % 16, area - 1)) * kPitch;

  float sums[kWarpM][kWarpN][4] = {};
  load_stage<Math>(a, at, shared, sources, base, 0);
  commit_copies();
  for (int chunk = 0; chunk < a.chunks; ++chunk) {
    const int stage = chunk % a.stages;
    wait_copies<0>();
    __syncthreads();
    if (a.stages == 2 && chunk + 1 < a.chunks) {
      load_stage<Math>(a, at, shared, sources, base, chunk + 1);
      commit_copies();
    }
    const uint32_t start = stage * a.stage_bytes, zero_slot = base + start + a.patch.slots * kPitch;
    uint32_t stage_pixels[kWarpM];
#pragma unroll
    for (int m = 0; m < kWarpM; ++m) stage_pixels[m] = pixels[m] + start;
    multiply_stage<Math>(shared, stage, a.p.stride > 1, stage_pixels, zero_slot, zero_slot + kPitch,
                         shared_address(zeros), column, sums);
    if (a.stages == 1 && chunk + 1 < a.chunks) {
      __syncthreads();
      load_stage<Math>(a, at, shared, sources, base, chunk + 1);
      commit_copies();
    }
  }
  __syncthreads();  // the stages become the store's
  store<Math>(a, at, tile, memory, first_pixel, column, sums);
}

// For each group and chunk of `step` channels its reduction steps: pairs of (16 bytes of channels, dilation).
std::vector<int> build_table(const Geometry32& p, Pattern pattern, int vector) {
  const int step = 2 * vector, chunks = (p.group_out + step - 1) / step;
  struct Unit {
    int dilation_h, dilation_w, vector, mask;
  };
  std::vector<std::vector<Unit>> units(static_cast<size_t>(p.groups) * chunks);
  for (const Share& share : make_shares(p, pattern)) {
    for (int channel : share.channels) {
      const int local = channel - share.group * p.group_out, place = local % step / vector;
      std::vector<Unit>& list = units[share.group * chunks + local / step];
      if (list.empty() || list.back().dilation_h != share.dilation_h || list.back().dilation_w != share.dilation_w ||
          list.back().vector != place)
        list.push_back({share.dilation_h, share.dilation_w, place, 0});
      list.back().mask |= 1 << local % vector;
    }
  }
  int first = round_up(static_cast<int>(units.size()) * kChunkFields, 2 * kUnitFields) / (2 * kUnitFields);
  std::vector<int> numbers, rest;
  for (std::vector<Unit>& list : units) {
    if (list.size() % 2 == 1) {  // its pair: the same pixels, times zero
      list.push_back(list.back());
      list.back().mask = 0;
    }
    numbers.insert(numbers.end(), {first, static_cast<int>(list.size()) / 2});
    first += static_cast<int>(list.size()) / 2;
    for (const Unit& unit : list) rest.insert(rest.end(), {unit.dilation_h, unit.dilation_w, unit.vector, unit.mask});
  }
  numbers.resize(round_up(static_cast<int>(numbers.size()), 2 * kUnitFields));
  numbers.insert(numbers.end(), rest.begin(), rest.end());
  return numbers;
}

template <typename Math>
int chunks_of(const Geometry32& p) {
  return (p.group_out + kStep<Math> - 1) / kStep<Math>;
}

int64_t column_blocks_of(const Geometry32& p) { return int64_t(p.groups) * ((p.group_in + kColumns - 1) / kColumns); }

template <typename Math>
Cut cut_for(const Geometry32& p, Pattern pattern) {
  const Device& device = current_device();
  // tile pixel i of a remainder r meets outputs from i - dilation / s to i + (r + dilation) / s
  const int s = p.stride;
  const int dh = static_cast<int>(max_dilation(pattern, 0)), dw = static_cast<int>(max_dilation(pattern, 1));
  const int64_t limit = device.shared_memory - static_cast<int64_t>(sizeof(Shared)) - 64;
  const int64_t filter_bytes = kStep<Math> * kFilterBytes<Math>;
  const Patch patch =
      fit_patch((limit - filter_bytes - kFilterBytes<Math> - kPitch) / (kPitch + 4), kPixels, (p.height + s - 1) / s,
                (p.width + s - 1) / s, 1, dh / s, (dh + s - 1) / s, dw / s, (dw + s - 1) / s);
  const int64_t tiles = int64_t(p.batch) * patch.tiles();
  if (tiles == 0 || tiles > INT_MAX || column_blocks_of(p) > 65535 || s * s > 65535 ||
      !addressable(p.out_height, p.out_width, p.out_channels, kVector<Math>))
    return {};
  const Table& table = cached_table(TableKind::kGradInput, {p.groups, kVector<Math>}, pattern,
                                    [&] { return build_table(p, pattern, kVector<Math>); });
  const int64_t stage_bytes = (patch.slots + 1) * int64_t(kPitch) + filter_bytes;
  const int64_t fixed = kFilterBytes<Math> + 4 * int64_t(patch.slots);
  const int64_t staged = int64_t(sizeof(typename Math::Element)) * kPixels * (kColumns + kVector<Math>);
  const int stages = chunks_of<Math>(p) > 1 && 2 * stage_bytes + fixed <= limit ? 2 : 1;
  const int64_t bytes = std::max(stages * stage_bytes + fixed, staged);
  if (bytes > limit) return {};
  return {patch, tiles, &table, stage_bytes, bytes, stages};
}

template <typename Math>
at::Tensor launch(const Cut& cut, const Geometry32& p, const at::Tensor& grad, const at::Tensor& weight) {
  at::Tensor out =
      at::empty({p.batch, p.in_channels, p.height, p.width}, grad.options(), at::MemoryFormat::ChannelsLast);
  const Arguments a{
      p,
      cut.patch,
      grad.const_data_ptr(),
      weight.const_data_ptr(),
      out.mutable_data_ptr(),
      cut.table->device,
      chunks_of<Math>(p),
      cut.stages,
      static_cast<int>(cut.stage_bytes),
  };
  C10_CUDA_CHECK(cudaFuncSetAttribute(grad_input_kernel<Math>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(cut.bytes)));
  const dim3 grid(static_cast<unsigned>(cut.tiles), static_cast<unsigned>(column_blocks_of(p)), p.stride * p.stride);
  grad_input_kernel<Math><<<grid, kThreads, cut.bytes, c10::cuda::getCurrentCUDAStream()>>>(a);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

Cut grad_input_tiled_cut(const Geometry32& p, at::ScalarType dtype, Pattern pattern, Precision precision) {
  const int vector = channels_of_vector(dtype);
  if (current_device().major < 8 || p.group_in % vector != 0 || p.group_out % vector != 0) return {};
  return with_arithmetic(dtype, precision, [&](auto arithmetic) { return cut_for<decltype(arithmetic)>(p, pattern); });
}

at::Tensor grad_input_tiled(const Cut& cut, const Geometry32& p, const at::Tensor& grad, const at::Tensor& weight,
                            Precision precision) {
  const at::Tensor nhwc = channels_last(grad), filters = channels_last(weight);
  return with_arithmetic(grad.scalar_type(), precision,
                         [&](auto arithmetic) { return launch<decltype(arithmetic)>(cut, p, nhwc, filters); });
}

}  // namespace icconv_mm::cuda
