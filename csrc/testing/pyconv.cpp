// The pyramidal convolution by kernels that CUDA chooses among, on the CPU, so that tests need no GPU. 'tiled' follows
// the program of the tensor-core kernel, fragment by fragment; for the gradient of the weight it runs the kernel's own
// code by warps whose loads and products are those of the instructions' definitions (PTX ISA: ldmatrix, mma.m16n8k16).
#include <ATen/Dispatch.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "../pyconv/grad_weight.h"

namespace icconv_mm::testing {
namespace {

using namespace pyconv;

template <typename T>
std::vector<T> pack(const Geometry& g, const Program& program, const int* numbers, at::TensorList weights,
                    bool backward) {
  std::vector<T> packed(size_t(program.fragments) * kLanes * 4);
  PackFragments<T> pass{};
  for (size_t l = 0; l < weights.size(); ++l) pass.levels[l] = filters_of<T>(g, g.levels[l], weights[l]);
  pass.count = static_cast<int>(weights.size());
  pass.fragments = reinterpret_cast<const Fragment*>(numbers + program.fragment_at);
  pass.columns = static_cast<int>(backward ? g.in_channels : g.out_channels);
  pass.channels = static_cast<int>(backward ? g.out_channels : g.in_channels);
  pass.backward = backward, pass.out = packed.data();
  for (size_t i = 0; i < packed.size(); ++i) pass(static_cast<uint32_t>(i));
  return packed;
}

// What a block of threads does, pixel by pixel: the sums of 64 columns, in the order of the steps and offsets.
template <typename T>
at::Tensor execute(const Geometry& g, const at::Tensor& source, at::TensorList weights, bool backward) {
  const std::vector<int> numbers = make_program(g, backward);
  const Program& program = *reinterpret_cast<const Program*>(numbers.data());
  const auto packed = pack<T>(g, program, numbers.data(), weights, backward);
  const auto* blocks = reinterpret_cast<const Block*>(numbers.data() + program.block_at);
  const auto* steps = reinterpret_cast<const Step*>(numbers.data() + program.step_at);
  const auto* offsets = reinterpret_cast<const Offset*>(numbers.data() + program.offset_at);
  const int64_t columns = backward ? g.in_channels : g.out_channels, channels = source.size(1);
  const int step = phase_step(g, backward);
  const int64_t apart = backward ? 1 : g.stride;
  const int64_t height = backward ? g.height : g.out_height, width = backward ? g.width : g.out_width;
  at::Tensor out = at::zeros({g.batch, columns, height, width}, source.options().dtype(at::kFloat));
  const auto from = source.accessor<T, 4>();
  auto to = out.accessor<float, 4>();
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x)
        for (int b = 0; b < program.blocks; ++b) {
          const Block& block = blocks[(y % step * step + x % step) * program.blocks + b];
          for (int s = block.first_step; s < block.first_step + block.steps; ++s) {
            const T* fragment = packed.data() + size_t(steps[s].first_fragment) * kLanes * 4;
            for (int o = steps[s].first_offset; o < steps[s].first_offset + steps[s].offsets; ++o) {
              const int64_t row = y / step * apart + offsets[o].dy, column = x / step * apart + offsets[o].dx;
              const bool inside = row >= 0 && row < source.size(2) && column >= 0 && column < source.size(3);
              for (int tile = 0; tile < kTilesOfBlock; ++tile) {
                if (!(offsets[o].mask >> tile & 1)) continue;
                for (int i = 0; inside && i < 4 * kLanes; ++i) {
                  const int64_t c = steps[s].channel + i / 4 % 4 * 2 + i % 2 + i % 4 / 2 * 8;
                  const int64_t k = b * kTilesOfBlock * kTileColumns + tile * kTileColumns + i / 16;
                  if (c < channels && k < columns)
                    to[n][k][y][x] += static_cast<float>(from[n][c][row][column]) * static_cast<float>(fragment[i]);
                }
                fragment += 4 * kLanes;
              }
            }
          }
        }
  return out;
}

at::Tensor by_program(const Geometry& g, const at::Tensor& source, at::TensorList weights, bool backward) {
  const std::string reason = refusal(g, source.scalar_type(), backward);
  TORCH_CHECK(reason.empty(), reason);
  at::Tensor out;
  AT_DISPATCH_REDUCED_FLOATING_TYPES(source.scalar_type(), "pyconv2d",
                                     [&] { out = execute<scalar_t>(g, source, weights, backward); });
  return out;
}

// A warp's part of every instruction, in a copy of the shared memory.
template <typename T>
struct Warp {
  const char* memory;

  struct Addresses {
    uint32_t of[kLanes];
  };
  struct Words {
    T of[kLanes][4][2];
  };
  struct Sums {
    float of[kLanes][2][4];
  };

  template <typename Address>
  void point(Addresses& to, const Address& address) const {
    for (int lane = 0; lane < kLanes; ++lane) to.of[lane] = address(lane);
  }
  // ldmatrix.x4.trans: lanes 8 i to 8 i + 7 point to the rows of matrix i; a lane gets elements lane / 4 of two rows
  void load_transposed(Words& to, const Addresses& from, int offset) const {
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 2; ++k) {
          const uint32_t row = from.of[8 * i + lane % 4 * 2 + k] + offset;
          TORCH_INTERNAL_ASSERT(row % 16 == 0, "ldmatrix reads rows at multiples of 16 bytes");
          std::memcpy(&to.of[lane][i][k], memory + row + lane / 4 * sizeof(T), sizeof(T));
        }
  }
  // register i of the first matrix: rows 8 further where i is odd, pixels where above 1; two registers of the second
  void multiply(Sums& sums, const Words& grads, const Words& pixels) const {
    float a[16][16], b[2][16][8];
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 2; ++k) {
          a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8 + k] = grads.of[lane][i][k];
          b[i / 2][lane % 4 * 2 + i % 2 * 8 + k][lane / 4] = pixels.of[lane][i][k];
        }
    for (int lane = 0; lane < kLanes; ++lane)
      for (int n = 0; n < 2; ++n)
        for (int i = 0; i < 4; ++i)
          for (int k = 0; k < 16; ++k)
            sums.of[lane][n][i] += a[lane / 4 + i / 2 * 8][k] * b[n][k][lane % 4 * 2 + i % 2];
  }
};

// What a block does: a job's sums over every `stride`-th tile from `first`.
template <typename T>
struct WeightBlock {
  const Geometry& g;
  const Patch& patch;
  const Places& places;
  const at::TensorAccessor<T, 4> grad, x;

  std::vector<char> stage(const Job& job, int index) const {
    const Tile tile = locate_tile(patch, index);
    const int height = static_cast<int>(g.height), width = static_cast<int>(g.width);
    std::vector<char> memory((size_t(patch.slots) + kPixelsOfTile) * kPixelPitch);
    const auto put = [&](int slot, int channel, T value) {
      std::memcpy(&memory[size_t(slot) * kPixelPitch + channel * sizeof(T)], &value, sizeof(T));
    };
    for (int slot = 0; slot < patch.slots; ++slot) {
      const int pixel = source_pixel(patch, tile, slot, height, width);
      for (int c = 0; pixel >= 0 && c < kColumnChannels && job.column + c < g.in_channels; ++c)
        put(slot, c, x[tile.image][job.column + c][pixel / width][pixel % width]);
    }
    for (int pixel = 0; pixel < patch.tile_h * patch.tile_w; ++pixel) {
      const int y = tile.y + pixel / patch.tile_w, column = tile.x + pixel % patch.tile_w;
      if (y >= g.out_height || column >= g.out_width) continue;
      for (int c = 0; c < kRowChannels && job.row + c < g.out_channels; ++c)
        put(patch.slots + pixel, c, grad[tile.image][job.row + c][y][column]);
    }
    return memory;
  }

  void operator()(const Job& job, const Tap* taps, int first, int stride, float* partial) const {
    const int area = patch.tile_h * patch.tile_w, tiles = static_cast<int>(g.batch) * patch.tiles();
    int slots[kPixelsOfTile];
    for (int pixel = 0; pixel < kPixelsOfTile; ++pixel) slots[pixel] = pixel_bytes(patch, pixel);
    typename Warp<T>::Sums sums[kWarps][kTapsOfWarp] = {};
    for (int index = first; index < tiles; index += stride) {
      const std::vector<char> memory = stage(job, index);
      const WeightMemory at{0, static_cast<uint32_t>(patch.slots) * kPixelPitch};
      for (int warp = 0; warp < kWarps; ++warp) {
        const int own = taps_of_warp(job, warp);
        int offsets[kTapsOfWarp] = {};
        for (int i = 0; i < own; ++i)
          offsets[i] = tap_bytes(patch, taps[tap_of_warp(job, warp, i)], static_cast<int>(g.dilation));
        multiply_pixels(Warp<T>{memory.data()}, at, slots, area, offsets, own, sums[warp]);
      }
    }
    for (int warp = 0; warp < kWarps; ++warp)
      for (int number = 0; number < taps_of_warp(job, warp); ++number)
        for (int lane = 0; lane < kLanes; ++lane)
          for (int i = 0; i < 8; ++i) {
            const SumPlace place = sum_place(lane, i % 4);
            const int64_t filter =
                find_row(places, job.row + place.row)
                    .place(job.column + i / 4 * 8 + place.column, taps[tap_of_warp(job, warp, number)]);
            if (filter >= 0) partial[filter] = sums[warp][number].of[lane][i / 4][i % 4];
          }
  }
};

template <typename T>
std::vector<at::Tensor> grad_weight_by_warps(const Geometry& g, const at::Tensor& grad, const at::Tensor& x) {
  std::vector<at::Tensor> out;
  for (const Level& level : g.levels)
    out.push_back(at::zeros({level.outputs, g.in_channels / level.groups, level.height, level.width}, x.options()));
  if (grad.numel() == 0 || x.numel() == 0) return out;
  const std::vector<int> numbers = make_weight_program(g);
  const WeightProgram& program = *reinterpret_cast<const WeightProgram*>(numbers.data());
  const auto* jobs = reinterpret_cast<const Job*>(numbers.data() + program.job_at);
  const auto* taps = reinterpret_cast<const Tap*>(numbers.data() + program.tap_at);
  const Patch patch =
      fit_patch(4000, kPixelsOfTile, static_cast<int>(g.out_height), static_cast<int>(g.out_width),
                static_cast<int>(g.stride), program.reach_h, program.reach_h, program.reach_w, program.reach_w);
  TORCH_CHECK(patch.tiles() > 0, "the tiled kernel of pyconv2d does not take such a call on this GPU");
  const Places places = places_of(g);
  const int slabs = std::min(3, static_cast<int>(g.batch) * patch.tiles());
  std::vector<float> partial(slabs * places.all, NAN);  // that each filter is written shows
  const WeightBlock<T> block{g, patch, places, grad.accessor<T, 4>(), x.accessor<T, 4>()};
  for (int slab = 0; slab < slabs; ++slab)
    for (int job = 0; job < program.jobs; ++job) block(jobs[job], taps, slab, slabs, &partial[slab * places.all]);
  for (int l = 0; l < places.count; ++l) {
    const AddSlabs<T> pass{partial.data() + places.levels[l].at, out[l].template mutable_data_ptr<T>(), slabs,
                           places.all};
    for (int64_t i = 0; i < out[l].numel(); ++i) pass(i);
  }
  return out;
}

void check_name(const std::string& kernel) {
  TORCH_CHECK(is_filled(kernel) || kernel == "tiled", "pyconv2d has no kernel '", kernel, "' to ask for by name");
}

at::Tensor output(c10::string_view name, const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias,
                  c10::IntArrayRef groups, int64_t stride, int64_t dilation, bool relu) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = check_forward(x, weights, bias, groups, stride, dilation);
  const std::string kernel(name);
  check_name(kernel);
  const at::Tensor shift = bias ? bias->to(x.scalar_type()) : at::Tensor();
  if (is_filled(kernel)) return forward_filled(kernel, g, x, weights, shift, relu);
  at::Tensor out = by_program(g, x, weights, false);
  if (shift.defined()) out.add_(shift.view({-1, 1, 1}));
  return (relu ? out.relu_() : out).to(x.options(), false, false, x.suggest_memory_format());
}

at::Tensor grad_input(c10::string_view name, const at::Tensor& grad, at::TensorList weights, c10::IntArrayRef size,
                      c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = check_grad_input(grad, weights, size, groups, stride, dilation);
  const std::string kernel(name);
  check_name(kernel);
  if (is_filled(kernel)) return grad_input_filled(kernel, g, grad, weights);
  return by_program(g, grad, weights, true).to(grad.options(), false, false, grad.suggest_memory_format());
}

std::vector<at::Tensor> grad_weight(c10::string_view name, const at::Tensor& grad, const at::Tensor& x,
                                    c10::IntArrayRef shapes, c10::IntArrayRef groups, int64_t stride,
                                    int64_t dilation) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Geometry g = check_grad_weight(grad, x, shapes, groups, stride, dilation);
  const std::string kernel(name);
  check_name(kernel);
  if (is_filled(kernel)) return grad_weight_filled(kernel, g, grad, x);
  const std::string reason = refusal(g, x.scalar_type(), false);
  TORCH_CHECK(reason.empty(), reason);
  std::vector<at::Tensor> out;
  AT_DISPATCH_REDUCED_FLOATING_TYPES(x.scalar_type(), "pyconv2d_grad_weight",
                                     [&] { out = grad_weight_by_warps<scalar_t>(g, grad, x); });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) {
  m.impl("pyconv2d_by", TORCH_FN(output));
  m.impl("pyconv2d_grad_input_by", TORCH_FN(grad_input));
  m.impl("pyconv2d_grad_weight_by", TORCH_FN(grad_weight));
}

}  // namespace icconv_mm::testing
