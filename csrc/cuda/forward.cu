// Forward pass as an implicit matrix product: rows are 128 output pixels, columns output channels in groups of eight
// that share a dilation, the reduction goes over input channels (32 bytes at a time) and the nine taps. One launch
// serves all runs; input and output are channels_last, filters [C_out][tap][C_in / groups].
#include "tables.h"
#include "tile.cuh"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace icconv_mm::cuda {
namespace {

constexpr int kPixels = 128;
constexpr int kThreads = 256, kWarpsN = 4;         // 2 x 4 warps, each 64 pixels x up to 4 column tiles
constexpr int kWarpM = 4, kWarpN = 4;              // 16 x 8 accumulators of a warp
constexpr int kMaxTiles = kWarpsN * kWarpN;        // of a block
constexpr int kMaxRows = 64;                       // of a block, so that two fit a processor
constexpr int kPitch = kStepBytes + kVectorBytes;  // bytes of a row in shared memory: an odd number of vectors
constexpr int kFilterBytes = kTaps * kPitch;       // of an output channel
constexpr int kBlockFields = 11, kTileFields = 4;

// The table: blocks [kBlockFields], tiles [kTileFields], then output channels, all of them sorted by dilation.
struct Block {
  int group, tiles, rows, first_tile, first_row, contiguous;  // offsets into the table; rows: its output channels
  int warps[kWarpsN + 1];                                     // the tiles of each column of warps
};
struct ColumnTile {
  int dilation_h, dilation_w, row, count;  // row: the first one, within the block
};

struct Arguments {
  Problem p;
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
  int channels[kPixels];
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

// One stage: all taps of 32 bytes of input channels. `kTiles` column tiles, straight on: those past a warp's last repeat
// it, and nobody stores them. `kAlike`: they share a dilation, and so the loads of pixels.
template <typename Math, int kTiles, bool kAlike>
__device__ void multiply_taps(const int* offsets, const uint32_t (&pixels)[kWarpM],
                              const uint32_t (&filters)[kWarpN / 2], float (&sums)[kWarpM][kWarpN][4]) {
#pragma unroll 3
  for (int tap = 0; tap < kTaps; ++tap) {
    const int4 four = *reinterpret_cast<const int4*>(offsets + tap * kMaxTiles);
    const int offset[kWarpN] = {four.x, four.y, four.z, four.w};
    typename Math::A a[kWarpM];
#pragma unroll
    for (int pair = 0; pair < kTiles / 2; ++pair) {
      uint32_t words[4];
      load_matrices(words, filters[pair] + tap * kPitch);
      const typename Math::B b[2] = {Math::make_b(words[0], words[1]), Math::make_b(words[2], words[3])};
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const int j = 2 * pair + odd;
        if (j == 0 || !kAlike) {
#pragma unroll
          for (int m = 0; m < kWarpM; ++m) {
            uint32_t rows[4];
            load_matrices(rows, pixels[m] + offset[j]);
            a[m] = Math::make_a(rows);
          }
        }
#pragma unroll
        for (int m = 0; m < kWarpM; ++m) Math::multiply(sums[m][j], a[m], b[odd]);
      }
    }
  }
}

template <typename Math>
__device__ void multiply_stage(const int* offsets, int tiles, bool alike, const uint32_t (&pixels)[kWarpM],
                               const uint32_t (&filters)[kWarpN / 2], float (&sums)[kWarpM][kWarpN][4]) {
  if (tiles > 2) {
    if (alike) {
      multiply_taps<Math, 4, true>(offsets, pixels, filters, sums);
    } else {
      multiply_taps<Math, 4, false>(offsets, pixels, filters, sums);
    }
  } else if (tiles > 0) {
    if (alike) {
      multiply_taps<Math, 2, true>(offsets, pixels, filters, sums);
    } else {
      multiply_taps<Math, 2, false>(offsets, pixels, filters, sums);
    }
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
    T* out = static_cast<T*>(a.out) +
             ((int64_t(tile.image) * a.p.out_height + y) * a.p.out_width + x) * a.p.out_channels;
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

template <typename Math>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(const Arguments a) {
  extern __shared__ __align__(16) char memory[];
  __shared__ Shared shared;
  uint32_t* sources = reinterpret_cast<uint32_t*>(memory + a.stages * a.stage_bytes);
  const Block block = reinterpret_cast<const Block*>(a.table)[blockIdx.y];
  const Tile tile = locate_tile(a.patch, blockIdx.x);
  find_sources(sources, a.patch, tile, a.p.height, a.p.width, a.p.in_channels / kVector<Math>);
  for (int row = threadIdx.x; row < block.rows; row += kThreads)
    shared.channels[row] = a.table[block.first_row + row];
  const int* bounds = reinterpret_cast<const Block*>(a.table)[blockIdx.y].warps;
  const ColumnTile* entries = reinterpret_cast<const ColumnTile*>(a.table + block.first_tile);
  for (int i = threadIdx.x; i < kTaps * kMaxTiles; i += kThreads) {
    const int tap = i / kMaxTiles, place = i % kMaxTiles, of = place / kWarpN;
    const ColumnTile t = entries[max(0, min(bounds[of] + place % kWarpN, bounds[of + 1] - 1))];
    reinterpret_cast<int*>(shared.offsets)[i] = kPitch * a.patch.offset(
        a.patch.before_h + (tap / 3 - 1) * t.dilation_h, a.patch.before_w + (tap % 3 - 1) * t.dilation_w);
  }
  for (int j = threadIdx.x; j < block.tiles; j += kThreads)
    shared.rows[j] = entries[j].row, shared.counts[j] = entries[j].count;
  __syncthreads();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first = bounds[warp % kWarpsN], tiles = bounds[warp % kWarpsN + 1] - first;
  bool alike = true;
  for (int j = 1; j < tiles; ++j)
    alike = alike && entries[first + j].dilation_h == entries[first].dilation_h &&
            entries[first + j].dilation_w == entries[first].dilation_w;
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
    multiply_stage<Math>(offsets, tiles, alike, stage_pixels, stage_filters, sums);
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

std::vector<Columns> make_columns(const Problem& p, Pattern pattern) {
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

// What a tile costs a warp: its products, and the loads of pixels unless the tile before it made them.
int cost_of(const std::vector<ColumnTile>& tiles, int i, int begin) {
  const bool shared = i > begin && tiles[i].dilation_h == tiles[i - 1].dilation_h &&
                      tiles[i].dilation_w == tiles[i - 1].dilation_w;
  return shared ? 1 : 3;
}

// Bounds of at least `parts` consecutive ranges of tiles of nearly equal cost, none of which exceeds its limits.
std::vector<int> cut(const std::vector<ColumnTile>& tiles, int begin, int end, int parts, int max_tiles, int max_rows) {
  std::vector<int> bounds{begin};
  int left = 0;
  for (int i = begin; i < end; ++i) left += cost_of(tiles, i, begin);
  int cost = 0, rows = 0;
  for (int i = begin; i < end; ++i) {
    const int here = cost_of(tiles, i, bounds.back()), open = std::max(1, parts - static_cast<int>(bounds.size()) + 1);
    const bool full = i - bounds.back() == max_tiles || rows + tiles[i].count > max_rows;
    // close where that is nearer to an equal share of what is left
    if (i > bounds.back() && (full || (open > 1 && 2 * cost + here > 2 * ((left + cost) / open)))) {
      bounds.push_back(i);
      cost = rows = 0;
    }
    const int added = cost_of(tiles, i, bounds.back());
    cost += added, rows += tiles[i].count;
    left = std::max(0, left - added);
  }
  bounds.push_back(end);
  return bounds;
}

// At most kWarpN tiles for each of the kWarpsN columns of warps.
std::vector<int> cut_for_warps(const std::vector<ColumnTile>& tiles, int begin, int end) {
  std::vector<int> bounds = cut(tiles, begin, end, kWarpsN, kWarpN, kMaxRows);
  if (static_cast<int>(bounds.size()) > kWarpsN + 1) {  // by number, where limits of the even cut left too many
    bounds.assign(1, begin);
    for (int warp = 1; warp <= kWarpsN; ++warp) bounds.push_back(begin + (end - begin) * warp / kWarpsN);
  }
  bounds.resize(kWarpsN + 1, end);
  return bounds;
}

std::vector<int> build_table(const Problem& p, Pattern pattern, int parts) {
  std::vector<Block> blocks;
  std::vector<int> tiles, rows;
  const std::vector<Columns> columns = make_columns(p, pattern);
  for (int group = 0; group < p.groups; ++group) {
    const Columns& of = columns[group];
    const std::vector<int> bounds =
        cut(of.tiles, 0, static_cast<int>(of.tiles.size()), parts, kMaxTiles, kMaxRows);
    for (size_t part = 0; part + 1 < bounds.size(); ++part) {
      const int begin = bounds[part], end = bounds[part + 1], row = of.tiles[begin].row;
      const int end_row = of.tiles[end - 1].row + of.tiles[end - 1].count;
      Block block{group, end - begin, end_row - row, static_cast<int>(tiles.size()), static_cast<int>(rows.size()), 1,
                  {}};
      const std::vector<int> warps = cut_for_warps(of.tiles, begin, end);
      for (int warp = 0; warp <= kWarpsN; ++warp) block.warps[warp] = warps[warp] - begin;
      for (int i = begin; i < end; ++i) {
        const ColumnTile& t = of.tiles[i];
        tiles.insert(tiles.end(), {t.dilation_h, t.dilation_w, t.row - row, t.count});
      }
      for (int i = row; i < end_row; ++i) {
        if (i > row && of.channels[i] != of.channels[i - 1] + 1) block.contiguous = 0;
        rows.push_back(of.channels[i]);
      }
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

// Into how many blocks to cut the columns so that the card is filled evenly: each of them loads the patch again.
int choose_parts(const Problem& p, Pattern pattern, int64_t others, int processors) {
  const Table& table = cached_table(TableKind::kForwardParts, {p.groups, others}, pattern, [&] {
    const std::vector<Columns> columns = make_columns(p, pattern);
    const auto largest = std::max_element(columns.begin(), columns.end(), [](const Columns& a, const Columns& b) {
      return a.tiles.size() < b.tiles.size();
    });
    const std::vector<ColumnTile>& tiles = largest->tiles;
    int best = 1;
    int64_t best_cost = 0;
    const int64_t places = 2 * int64_t(processors);
    for (int parts = 1; parts <= static_cast<int>(tiles.size()); ++parts) {
      const std::vector<int> bounds =
          cut(tiles, 0, static_cast<int>(tiles.size()), parts, kMaxTiles, kMaxRows);
      int64_t most = 0;
      for (size_t part = 0; part + 1 < bounds.size(); ++part) {
        int64_t cost = 8;  // the patch, and what every block does once
        for (int i = bounds[part]; i < bounds[part + 1]; ++i) cost += cost_of(tiles, i, bounds[part]);
        most = std::max(most, cost);
      }
      // two blocks share a processor; one that has it for itself takes about two thirds of the time
      const int64_t blocks = others * static_cast<int64_t>(bounds.size() - 1), rest = blocks % places;
      const int64_t turns = blocks / places * 3 + (rest == 0 ? 0 : rest <= processors ? 2 : 3);
      if (best_cost == 0 || turns * most < best_cost) best = parts, best_cost = turns * most;
    }
    return std::vector<int>{best};
  });
  return table.host[0];
}

template <typename Math>
at::Tensor launch(const Problem& p, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Pattern pattern, bool relu) {
  const Device& device = current_device();
  const int halo_h = max_dilation(pattern, 0), halo_w = max_dilation(pattern, 1);
  const Patch patch = make_patch(kPixels, p.out_height, p.out_width, p.stride, halo_h, halo_h, halo_w, halo_w);
  const int64_t tiles = int64_t(p.batch) * patch.tiles();
  if (tiles > INT_MAX || !addressable(p.height, p.width, p.in_channels, kVector<Math>)) return {};
  const int parts = choose_parts(p, pattern, tiles * p.groups, device.processors);
  const Table& table =
      cached_table(TableKind::kForward, {p.groups, parts}, pattern, [&] { return build_table(p, pattern, parts); });
  const int grid_y = table.host.back(), rows = table.host[table.host.size() - 2];

  const int64_t stage_bytes = (int64_t(patch.slots) + kTaps * rows) * kPitch;
  const int64_t source_bytes = 4 * int64_t(patch.slots);
  const int64_t staged = int64_t(kPixels) * (rows + 3 * kVector<Math>) * sizeof(typename Math::Element);
  const int64_t limit = device.shared_memory - static_cast<int64_t>(sizeof(Shared)) - 64;
  // two stages where two blocks of them fit a processor: two blocks hide more than two stages do
  const int stages = p.group_in > kStep<Math> && 2 * (2 * stage_bytes + source_bytes) <= limit - kReserved ? 2 : 1;
  // the sources are no longer needed when results are staged
  const int64_t bytes = std::max(stages * stage_bytes + source_bytes, staged);
  if (bytes > limit || grid_y > 65535) return {};

  at::Tensor out = at::empty({p.batch, p.out_channels, p.out_height, p.out_width}, x.options(),
                             at::MemoryFormat::ChannelsLast);
  const Arguments a{p,
                    patch,
                    x.const_data_ptr(),
                    weight.const_data_ptr(),
                    bias.defined() ? bias.const_data_ptr() : nullptr,
                    out.mutable_data_ptr(),
                    table.device,
                    relu,
                    stages,
                    static_cast<int>(stage_bytes)};
  C10_CUDA_CHECK(cudaFuncSetAttribute(forward_kernel<Math>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(bytes)));
  const dim3 grid(static_cast<unsigned>(tiles), grid_y);
  forward_kernel<Math><<<grid, kThreads, bytes, c10::cuda::getCurrentCUDAStream()>>>(a);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

at::Tensor forward_tiled(const Problem& p, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         Pattern pattern, bool relu, Precision precision) {
  if (current_device().major < 8 || p.group_in % (kVectorBytes / x.element_size()) != 0) return {};
  const at::Tensor nhwc = channels_last(x), filters = channels_last(weight);
  switch (x.scalar_type()) {
    case at::kHalf:
      return launch<Float16>(p, nhwc, filters, bias, pattern, relu);
    case at::kBFloat16:
      return launch<BFloat16>(p, nhwc, filters, bias, pattern, relu);
    case at::kFloat:
      return precision == Precision::kTf32 ? launch<Tf32>(p, nhwc, filters, bias, pattern, relu)
                                           : launch<Float32>(p, nhwc, filters, bias, pattern, relu);
    default:
      return {};
  }
}

}  // namespace icconv_mm::cuda
