// What the pyramidal convolutions by name share on all devices: the levels of a call and their checks, torch's own
// convolutions of zero-filled filters, and the program of the kernel for tensor cores.
#pragma once

#include "../common/common.h"
#include "../common/host_device.h"
#include "../kernel_table.h"

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace icconv_mm::pyconv {

constexpr int kMaxLevels = 8;

struct Level {
  int64_t first, outputs, height, width, groups;  // first: output channel; height, width: of the kernel
};

// The sizes and steps of one call.
struct Geometry {
  int64_t batch, in_channels, height, width, out_channels, out_height, out_width, stride, dilation;
  std::vector<Level> levels;
};

Geometry check_forward(const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias,
                       c10::IntArrayRef groups, int64_t stride, int64_t dilation);
Geometry check_grad_input(const at::Tensor& grad, at::TensorList weights, c10::IntArrayRef size,
                          c10::IntArrayRef groups, int64_t stride, int64_t dilation);
Geometry check_grad_weight(const at::Tensor& grad, const at::Tensor& x, c10::IntArrayRef shapes,
                           c10::IntArrayRef groups, int64_t stride, int64_t dilation);
ShapeClass shape_class(const Geometry& g);

// Torch's convolutions of filters in which zeros stand for what groups leave out: 'dense' is a single one, with the
// largest kernel and without groups; 'merged' one per level, with groups of at least 16 channels.
bool is_filled(const std::string& kernel);
at::Tensor forward_filled(const std::string& kernel, const Geometry& g, const at::Tensor& x, at::TensorList weights,
                          const at::Tensor& bias, bool relu);
at::Tensor grad_input_filled(const std::string& kernel, const Geometry& g, const at::Tensor& grad,
                             at::TensorList weights);
std::vector<at::Tensor> grad_weight_filled(const std::string& kernel, const Geometry& g, const at::Tensor& grad,
                                           const at::Tensor& x);

// The program of the tiled kernel. A block computes up to eight tiles of eight output channels. For each step of 16
// input channels it goes over the offsets that any of its tiles reads; the mask of an offset says which tiles do. Each
// tile then takes the next fragment, 16 x 8 filters as tensor cores hold them. What groups leave out costs nothing
// where a whole fragment of it is zeros.
constexpr int kTileColumns = 8, kTilesOfBlock = 8, kStepChannels = 16, kLanes = 32;

struct alignas(16) Step {
  int channel, first_offset, offsets, first_fragment;
};
struct alignas(16) Offset {
  int dy, dx, mask, unused;  // in pixels of what is read
};
struct alignas(16) Fragment {
  int column, channel, dy, dx;  // in taps
};
struct Block {
  int first_step, steps;
};
struct Program {                            // the head of the numbers; the tables follow
  int blocks, fragments, reach_h, reach_w;  // blocks: of a phase, which follow one another; reach: in pixels
  int block_at, step_at, offset_at, fragment_at;
};

// Channels in and out change places for the gradient of the input, whose offsets point the other way. Its pixels that
// lie `stride` apart read the same taps, at neighbouring outputs: they are a phase, numbered row by row, with a program
// of its own. The forward pass has one phase.
std::vector<int> make_program(const Geometry& g, bool backward);
inline int phase_step(const Geometry& g, bool backward) { return backward ? static_cast<int>(g.stride) : 1; }

// Whether filters of a level lead from one of `inputs` channels to one of `outputs`, each counted from a first one.
bool meet(const Level& level, int64_t in_channels, int64_t input, int64_t inputs, int64_t output, int64_t outputs);

// One sentence if the program's kernel does not take such a call, else empty.
std::string refusal(const Geometry& g, at::ScalarType dtype, bool backward);

// One element of a fragment per index, from the filters as they are.
template <typename T>
struct PackFragments {
  struct Filters {
    const T* data;
    int64_t strides[4];
    int first, outputs, group_in, group_out, height, width;
  };
  Filters levels[kMaxLevels];
  int count;
  const Fragment* fragments;
  int columns, channels;  // of the product
  bool backward;
  T* out;  // [fragment][lane][4]

  // The filter that leads from input channel `in` to output channel `out`, (dy, dx) taps from the centre; zero for
  // none.
  ICCONV_MM_BOTH T filter(int in, int output, int dy, int dx) const {
    for (int l = 0; l < count; ++l) {
      const Filters& f = levels[l];
      const int o = output - f.first, y = dy + f.height / 2, x = dx + f.width / 2;
      if (o < 0 || o >= f.outputs) continue;
      const int i = in - o / f.group_out * f.group_in;
      if (i < 0 || i >= f.group_in || y < 0 || y >= f.height || x < 0 || x >= f.width) return T(0);
      return f.data[o * f.strides[0] + i * f.strides[1] + y * f.strides[2] + x * f.strides[3]];
    }
    return T(0);
  }

  ICCONV_MM_BOTH void operator()(uint32_t index) const {
    const int element = index % 4, lane = index / 4 % kLanes;
    const Fragment f = fragments[index / (4 * kLanes)];
    const int column = f.column + lane / 4, channel = f.channel + lane % 4 * 2 + element % 2 + element / 2 * 8;
    const bool inside = column < columns && channel < channels;
    out[index] = !inside    ? T(0)
                 : backward ? filter(column, channel, -f.dy, -f.dx)
                            : filter(channel, column, f.dy, f.dx);
  }
};

template <typename T>
typename PackFragments<T>::Filters filters_of(const Geometry& g, const Level& level, const at::Tensor& weight) {
  return {weight.const_data_ptr<T>(),
          {weight.stride(0), weight.stride(1), weight.stride(2), weight.stride(3)},
          static_cast<int>(level.first),
          static_cast<int>(level.outputs),
          static_cast<int>(g.in_channels / level.groups),
          static_cast<int>(level.outputs / level.groups),
          static_cast<int>(level.height),
          static_cast<int>(level.width)};
}

}  // namespace icconv_mm::pyconv
