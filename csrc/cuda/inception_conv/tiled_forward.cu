// Forward pass as an implicit matrix product: rows are 256 output pixels, columns output channels in groups of eight
// that share a dilation, the reduction goes over input channels (32 bytes at a time) and the nine taps. One launch
// serves all runs; input and output are channels_last, filters [C_out][tap][C_in / groups].
#include "../tile.cuh"
#include "arithmetic.cuh"
#include "shares.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace icconv_mm::cuda {
namespace {

constexpr int kPixels = 256;
constexpr int kThreads = 256, kWarpsN = 2;         // 4 x 2 warps, each 64 pixels x up to 4 column tiles
constexpr int kWarpM = 4, kWarpN = 4;              // 16 x 8 accumulators of a warp
constexpr int kMaxTiles = kWarpsN * kWarpN;        // of a block
constexpr int kMaxRows = 56;                       // of a block, so that two fit a processor
constexpr int kManyTiles = 128;                    // pixel tiles from which a warp takes more dilations
constexpr int kPitch = kStepBytes + kVectorBytes;  // bytes of a row in shared memory: an odd number of vectors
constexpr int kFilterBytes = kTaps * kPitch;       // of an output channel
constexpr int kBlockFields = 6 + kWarpsN + 1, kTileFields = 4;

// The table: blocks [kBlockFields], tiles [kTileFields], then output channels, all of them sorted by dilation.
struct Block {
  int group, tiles, rows, first_tile, first_row, contiguous;  // offsets into the table; rows: its output channels
  int warps[kWarpsN + 1];                                     // the tiles of each column of warps
};
struct ColumnTile {
  int dilation_h, dilation_w, row, count;  // row: the first one, within the block
};

struct Arguments {
  Geometry32 p;
  Patch patch;
  const void *x, *weight, *bias;
  void* out;
  const int* table;
  bool relu;
  int stages, stage_bytes;
};

struct Shared {
  int4 offsets[kTaps][kWarpsN];  // bytes from a pixel to the tap, for the column tiles of each warp
  int rows[kMaxTiles + 1], counts[kMaxTiles];
  int channels[kMaxRows];
};

template <typename Math>
__device__ void load_stage(const Arguments& a, const Block& block, const Shared& shared, const uint32_t* sources,
                           int image, uint32_t target, int step) {
  using T = typename Math::Element;
  const int channel = step * kStep<Math>, vectors = (a.p.group_in - channel) / kVector<Math>;
  const T* pixels = static_cast<const T*>(a.x) + int64_t(image) * a.p.height * a.p.width * a.p.in_channels +
                    block.group * a.p.group_in + channel;
  load_pairs(target, kPitch, sources, a.patch.slots, pixels, vectors);
  const int vector = threadIdx.x % 2;
  const bool valid = vector < vectors;
  target += a.patch.slots * kPitch + vector * kVectorBytes;
  const T* filters = static_cast<const T*>(a.weight) + channel + (valid ? vector * kVector<Math> : 0);
  if (block.contiguous) filters += int64_t(shared.channels[0]) * kTaps * a.p.group_in;
  for (int i = threadIdx.x / 2; i < block.rows * kTaps; i += kThreads / 2) {  // i: channel and tap, as in memory
    int64_t place = i;
    if (!block.contiguous) place = int64_t(shared.channels[i / kTaps]) * kTaps + i % kTaps;
    copy_async(target + i * kPitch, filters + place * a.p.group_in, valid);
  }
}

// Which loads of pixels the column tiles of a warp share: none, those of the middle column of taps (one dilation of the
// height), or all (one dilation).
enum class Sharing { kNone, kColumn, kAll };

// One stage: all taps of 32 bytes of input channels, straight on for a number of column tiles.
template <typename Math, int kTiles, Sharing kSharing>
__device__ void multiply_taps(const int* offsets, const uint32_t (&pixels)[kWarpM],
                              const uint32_t (&filters)[kWarpN / 2], float (&sums)[kWarpM][kWarpN][4]) {
#pragma unroll 1
  for (int row = 0; row < 3; ++row) {
#pragma unroll
    for (int column = 0; column < 3; ++column) {
      const int tap = row * 3 + column;
      const int4 four = *reinterpret_cast<const int4*>(offsets + tap * kMaxTiles);
      const int offset[kWarpN] = {four.x, four.y, four.z, four.w};
      const bool share = kSharing == Sharing::kAll || (kSharing == Sharing::kColumn && column == 1);
      typename Math::A a[kWarpM];
      uint32_t words[4];
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        if (j % 2 == 0) load_matrices(words, filters[j / 2] + tap * kPitch);
        const typename Math::B b = Math::make_b(words[j % 2 * 2], words[j % 2 * 2 + 1]);
        if (j == 0 || !share) {
#pragma unroll
          for (int m = 0; m < kWarpM; ++m) {
            uint32_t rows[4];
            load_matrices(rows, pixels[m] + offset[j]);
            a[m] = Math::make_a(rows);
          }
        }
#pragma unroll
        for (int m = 0; m < kWarpM; ++m) Math::multiply(sums[m][j], a[m], b);
      }
    }
  }
}

// Three tiles of different dilations run as four, the last of them twice: nobody stores what is past a warp's tiles.
template <typename Math>
__device__ void multiply_stage(const int* offsets, int tiles, Sharing sharing, const uint32_t (&pixels)[kWarpM],
                               const uint32_t (&filters)[kWarpN / 2], float (&sums)[kWarpM][kWarpN][4]) {
  if (sharing == Sharing::kAll) {
    if (tiles == 4) multiply_taps<Math, 4, Sharing::kAll>(offsets, pixels, filters, sums);
    if (tiles == 3) multiply_taps<Math, 3, Sharing::kAll>(offsets, pixels, filters, sums);
    if (tiles == 2) multiply_taps<Math, 2, Sharing::kAll>(offsets, pixels, filters, sums);
    if (tiles == 1) multiply_taps<Math, 1, Sharing::kAll>(offsets, pixels, filters, sums);
  } else if (sharing == Sharing::kColumn) {
    if (tiles > 2) multiply_taps<Math, 4, Sharing::kColumn>(offsets, pixels, filters, sums);
    if (tiles == 2) multiply_taps<Math, 2, Sharing::kColumn>(offsets, pixels, filters, sums);
  } else {
    if (tiles > 2) multiply_taps<Math, 4, Sharing::kNone>(offsets, pixels, filters, sums);
    if (tiles == 2) multiply_taps<Math, 2, Sharing::kNone>(offsets, pixels, filters, sums);
  }
}

// Through shared memory, so that the channels of a pixel are written together.
template <typename Math>
__device__ void store(const Arguments& a, const Block& block, const Shared& shared, const Tile& tile, char* memory,
                      int first, int tiles, int first_pixel, const float (&sums)[kWarpM][kWarpN][4]) {
  using T = typename Math::Element;
  constexpr int kVec = kVector<Math>;
  const int lane = threadIdx.x % 32;
  // the first channel's place within its 16 bytes of the output, where the channels follow one another there
  const bool vectors = block.contiguous && a.p.out_channels % kVec == 0;
  const int shift = vectors ? shared.channels[0] % kVec : 0;
  const int groups = (shift + block.rows + kVec - 1) / kVec, pitch = (groups + 1) * kVec;
  T* staged = reinterpret_cast<T*>(memory);
#pragma unroll
  for (int j = 0; j < kWarpN; ++j) {
    if (j >= tiles) break;
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      const int column = lane % 4 * 2 + odd, row = shared.rows[first + j] + column;
      if (column >= shared.counts[first + j]) continue;
      const float bias = a.bias ? Math::widen(static_cast<const T*>(a.bias)[shared.channels[row]]) : 0.f;
#pragma unroll
      for (int m = 0; m < kWarpM; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float value = sums[m][j][2 * half + odd] + bias;
          if (a.relu && value < 0) value = 0;  // NaN stays
          staged[(first_pixel + 16 * m + 8 * half + lane / 4) * pitch + shift + row] = Math::round(value);
        }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kPixels * groups; i += kThreads) {
    const int pixel = i / groups, group = i % groups;
    const int y = tile.y + pixel / a.patch.tile_w, x = tile.x + pixel % a.patch.tile_w;
    if (pixel >= a.patch.tile_h * a.patch.tile_w || y >= a.p.out_height || x >= a.p.out_width) continue;
    T* out =
        static_cast<T*>(a.out) + ((int64_t(tile.image) * a.p.out_height + y) * a.p.out_width + x) * a.p.out_channels;
    const T* values = staged + pixel * pitch + group * kVec;
    const int row = group * kVec - shift;
    if (vectors && row >= 0 && row + kVec <= block.rows) {
      *reinterpret_cast<uint4*>(out + shared.channels[row]) = *reinterpret_cast<const uint4*>(values);
    } else {
      for (int e = 0; e < kVec; ++e)
        if (row + e >= 0 && row + e < block.rows) out[shared.channels[row + e]] = values[e];
    }
  }
}

// What all warps of a block look up: its column tiles and where their taps lie.
__device__ __forceinline__ void find_taps(const Arguments& a, const Block& block, const int* bounds,
                                          const ColumnTile* entries, Shared& shared) {
  for (int i = threadIdx.x; i < kTaps * kMaxTiles; i += kThreads) {
    const int tap = i / kMaxTiles, place = i % kMaxTiles, of = place / kWarpN;
    const ColumnTile t = entries[max(0, min(bounds[of] + place % kWarpN, bounds[of + 1] - 1))];
    reinterpret_cast<int*>(shared.offsets)[i] =
        kPitch * a.patch.offset(a.patch.before_h + (tap / 3 - 1) * t.dilation_h,
                                a.patch.before_w + (tap % 3 - 1) * t.dilation_w);
  }
  for (int j = threadIdx.x; j < block.tiles; j += kThreads)
    shared.rows[j] = entries[j].row, shared.counts[j] = entries[j].count;
}

__device__ __forceinline__ Sharing sharing_of(const ColumnTile* entries, int first, int tiles) {
  bool one_height = true, one_width = true;
  for (int j = 1; j < tiles; ++j) {
    one_height = one_height && entries[first + j].dilation_h == entries[first].dilation_h;
    one_width = one_width && entries[first + j].dilation_w == entries[first].dilation_w;
  }
  return !one_height ? Sharing::kNone : one_width ? Sharing::kAll : Sharing::kColumn;
}

template <typename Math>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(const Arguments a) {
  extern __shared__ __align__(16) char memory[];
  __shared__ Shared shared;
  uint32_t* sources = reinterpret_cast<uint32_t*>(memory + a.stages * a.stage_bytes);
  const Block block = reinterpret_cast<const Block*>(a.table)[blockIdx.y];
  const Tile tile = locate_tile(a.patch, blockIdx.x);
  find_sources(sources, a.patch, tile, a.p.height, a.p.width, a.p.in_channels / kVector<Math>);
  for (int row = threadIdx.x; row < block.rows; row += kThreads) shared.channels[row] = a.table[block.first_row + row];
  const int* bounds = reinterpret_cast<const Block*>(a.table)[blockIdx.y].warps;
  const ColumnTile* entries = reinterpret_cast<const ColumnTile*>(a.table + block.first_tile);
  find_taps(a, block, bounds, entries, shared);
  __syncthreads();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first = bounds[warp % kWarpsN], tiles = bounds[warp % kWarpsN + 1] - first;
  const Sharing sharing = sharing_of(entries, first, tiles);
  const int first_pixel = warp / kWarpsN * 16 * kWarpM;
  const uint32_t base = shared_address(memory), filter_base = base + a.patch.slots * kPitch;
  uint32_t pixels[kWarpM], filters[kWarpN / 2];
  const int area = a.patch.tile_h * a.patch.tile_w;
#pragma unroll
  for (int m = 0; m < kWarpM; ++m) {
    const int pixel = min(first_pixel + 16 * m + lane % 16, area - 1);  // a surplus row computes what nobody stores
    pixels[m] = base + a.patch.slot_of(pixel) * kPitch + lane / 16 * kVectorBytes;
  }
#pragma unroll
  for (int pair = 0; pair < kWarpN / 2; ++pair) {
    const int j = min(2 * pair + lane / 16, max(tiles - 1, 0));
    const int row = tiles > 0 ? shared.rows[first + j] + lane % 8 : 0;  // past its tile: columns that nobody stores
    filters[pair] = filter_base + min(row, block.rows - 1) * kFilterBytes + lane / 8 % 2 * kVectorBytes;
  }

  const int* offsets = reinterpret_cast<const int*>(&shared.offsets[0][warp % kWarpsN]);
  float sums[kWarpM][kWarpN][4] = {};
  const int steps = (a.p.group_in + kStep<Math> - 1) / kStep<Math>;
  load_stage<Math>(a, block, shared, sources, tile.image, base, 0);
  commit_copies();
  for (int step = 0; step < steps; ++step) {
    const uint32_t stage = step % a.stages * a.stage_bytes;
    wait_copies<0>();
    __syncthreads();
    if (a.stages == 2 && step + 1 < steps) {
      load_stage<Math>(a, block, shared, sources, tile.image, base + (step + 1) % 2 * a.stage_bytes, step + 1);
      commit_copies();
    }
    uint32_t stage_pixels[kWarpM], stage_filters[kWarpN / 2];
#pragma unroll
    for (int m = 0; m < kWarpM; ++m) stage_pixels[m] = pixels[m] + stage;
#pragma unroll
    for (int pair = 0; pair < kWarpN / 2; ++pair) stage_filters[pair] = filters[pair] + stage;
    multiply_stage<Math>(offsets, tiles, sharing, stage_pixels, stage_filters, sums);
    if (a.stages == 1 && step + 1 < steps) {
      __syncthreads();
      load_stage<Math>(a, block, shared, sources, tile.image, base, step + 1);
      commit_copies();
    }
  }
  __syncthreads();  // the stages become the store's
  store<Math>(a, block, shared, tile, memory, first, tiles, first_pixel, sums);
}

// The column tiles of a group, and its output channels sorted by dilation.
struct Columns {
  std::vector<ColumnTile> tiles;
  std::vector<int> channels;
};

std::vector<Columns> make_columns(const Geometry32& p, Pattern pattern) {
  std::vector<Columns> columns(p.groups);
  for (const Share& share : make_shares(p, pattern)) {
    auto& [tiles, channels] = columns[share.group];
    for (size_t i = 0; i < share.channels.size(); i += 8)
      tiles.push_back({share.dilation_h, share.dilation_w, static_cast<int>(channels.size() + i),
                       static_cast<int>(std::min<size_t>(8, share.channels.size() - i))});
    channels.insert(channels.end(), share.channels.begin(), share.channels.end());
  }
  return columns;
}

// How many consecutive tiles each warp takes. A dilation of several tiles has warps for itself, about 3.5 tiles each so
// that two of them keep within kMaxRows; dilations of one tile share a warp, up to `most` of them.
std::vector<int> share_out(const std::vector<ColumnTile>& tiles, int most) {
  const auto same = [&](size_t a, size_t b) {
    return tiles[a].dilation_h == tiles[b].dilation_h && tiles[a].dilation_w == tiles[b].dilation_w;
  };
  std::vector<int> warps;
  int lone = 0;  // dilations of one tile in the last warp; 0 where it is none of theirs
  for (size_t i = 0, end; i < tiles.size(); i = end) {
    for (end = i + 1; end < tiles.size() && same(i, end);) ++end;
    const int count = static_cast<int>(end - i), parts = count <= kWarpN ? 1 : (2 * count + 6) / 7;
    if (count > 1) {
      for (int part = 0; part < parts; ++part) warps.push_back(count * (part + 1) / parts - count * part / parts);
      lone = 0;
    } else if (lone > 0 && lone < most) {
      ++warps.back(), ++lone;
    } else {
      warps.push_back(1);
      lone = 1;
    }
  }
  return warps;
}

std::vector<int> build_table(const Geometry32& p, Pattern pattern, int most) {
  std::vector<Block> blocks;
  std::vector<int> tiles, rows;
  const std::vector<Columns> columns = make_columns(p, pattern);
  for (int group = 0; group < p.groups; ++group) {
    const Columns& of = columns[group];
    const std::vector<int> warps = share_out(of.tiles, most);
    int begin = 0;
    for (size_t warp = 0; warp < warps.size();) {
      const int row = of.tiles[begin].row;
      Block block{group, 0, 0, static_cast<int>(tiles.size()), static_cast<int>(rows.size()), 1, {}};
      for (int place = 0; place < kWarpsN; ++place) {
        if (warp < warps.size()) {
          const ColumnTile& last = of.tiles[begin + block.tiles + warps[warp] - 1];
          if (last.row + last.count - row <= kMaxRows) {
            block.tiles += warps[warp++];
            block.rows = last.row + last.count - row;
          }
        }
        block.warps[place + 1] = block.tiles;
      }
      for (int i = begin; i < begin + block.tiles; ++i) {
        const ColumnTile& t = of.tiles[i];
        tiles.insert(tiles.end(), {t.dilation_h, t.dilation_w, t.row - row, t.count});
      }
      for (int i = row; i < row + block.rows; ++i) {
        if (i > row && of.channels[i] != of.channels[i - 1] + 1) block.contiguous = 0;
        rows.push_back(of.channels[i]);
      }
      begin += block.tiles;
      blocks.push_back(block);
    }
  }
  std::vector<int> numbers;
  const int tile_start = round_up(static_cast<int>(blocks.size()) * kBlockFields, kTileFields);
  int most_rows = 0;
  for (Block& b : blocks) {
    b.first_tile += tile_start, b.first_row += tile_start + static_cast<int>(tiles.size());
    most_rows = std::max(most_rows, b.rows);
    const int* fields = reinterpret_cast<const int*>(&b);
    numbers.insert(numbers.end(), fields, fields + kBlockFields);
  }
  numbers.resize(tile_start);
  numbers.insert(numbers.end(), tiles.begin(), tiles.end());
  numbers.insert(numbers.end(), rows.begin(), rows.end());
  numbers.insert(numbers.end(), {most_rows, static_cast<int>(blocks.size())});  // last, for the host
  return numbers;
}

int blocks_of(const Table& table) { return table.host.back(); }

template <typename Math>
Cut cut_for(const Geometry32& p, Pattern pattern) {
  const Device& device = current_device();
  const int halo_h = static_cast<int>(max_dilation(pattern, 0)), halo_w = static_cast<int>(max_dilation(pattern, 1));
  const int64_t limit = device.shared_memory - static_cast<int64_t>(sizeof(Shared)) - 64;
  const Patch patch = fit_patch((limit - kMaxRows * kFilterBytes) / (kPitch + 4), kPixels, p.out_height, p.out_width,
                                p.stride, halo_h, halo_h, halo_w, halo_w);
  const int64_t tiles = int64_t(p.batch) * patch.tiles();
  if (tiles == 0 || tiles > INT_MAX || !addressable(p.height, p.width, p.in_channels, kVector<Math>)) return {};
  // many pixel tiles fill the GPU as they are: then fewer blocks, each of which loads the patch again, are better
  const int most = tiles * p.groups >= kManyTiles ? kWarpN : 2;
  const Table& table =
      cached_table(TableKind::kForward, {p.groups, most}, pattern, [&] { return build_table(p, pattern, most); });
  const int grid_y = blocks_of(table), rows = table.host[table.host.size() - 2];

  const int64_t stage_bytes = (int64_t(patch.slots) + kTaps * rows) * kPitch;
  const int64_t source_bytes = 4 * int64_t(patch.slots);
  const int64_t staged = int64_t(sizeof(typename Math::Element)) * kPixels * (rows + 3 * kVector<Math>);
  // two stages where two blocks of them fit a processor: two blocks hide more than two stages do
  const int stages = p.group_in > kStep<Math> && 2 * (2 * stage_bytes + source_bytes) <= limit - kReserved ? 2 : 1;
  // the sources are no longer needed when results are staged
  const int64_t bytes = std::max(stages * stage_bytes + source_bytes, staged);
  if (bytes > limit || grid_y > 65535) return {};
  return {patch, tiles, &table, stage_bytes, bytes, stages};
}

template <typename Math>
at::Tensor launch(const Cut& cut, const Geometry32& p, const at::Tensor& x, const at::Tensor& weight,
                  const at::Tensor& bias, bool relu) {
  at::Tensor out =
      at::empty({p.batch, p.out_channels, p.out_height, p.out_width}, x.options(), at::MemoryFormat::ChannelsLast);
  const Arguments a{
      p,
      cut.patch,
      x.const_data_ptr(),
      weight.const_data_ptr(),
      bias.defined() ? bias.const_data_ptr() : nullptr,
      out.mutable_data_ptr(),
      cut.table->device,
      relu,
      cut.stages,
      static_cast<int>(cut.stage_bytes),
  };
  C10_CUDA_CHECK(cudaFuncSetAttribute(forward_kernel<Math>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(cut.bytes)));
  const dim3 grid(static_cast<unsigned>(cut.tiles), blocks_of(*cut.table));
  forward_kernel<Math><<<grid, kThreads, cut.bytes, c10::cuda::getCurrentCUDAStream()>>>(a);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

Cut forward_tiled_cut(const Geometry32& p, at::ScalarType dtype, Pattern pattern, Precision precision) {
  if (current_device().major < 8 || p.group_in % channels_of_vector(dtype) != 0) return {};
  return with_arithmetic(dtype, precision, [&](auto arithmetic) { return cut_for<decltype(arithmetic)>(p, pattern); });
}

at::Tensor forward_tiled(const Cut& cut, const Geometry32& p, const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& bias, bool relu, Precision precision) {
  const at::Tensor nhwc = channels_last(x), filters = channels_last(weight);
  return with_arithmetic(x.scalar_type(), precision, [&](auto arithmetic) {
    return launch<decltype(arithmetic)>(cut, p, nhwc, filters, bias, relu);
  });
}

}  // namespace icconv_mm::cuda
