// Inception convolution on the CPU, fp32, forward: a direct convolution with channel-inner "dot" tiles.
//
// The input is copied once into [H + 2p][W + 2p][C] with a zero border, so that a dilation is nothing but a pointer
// offset and every load is aligned. A tile computes R output channels of one run times P neighbouring pixels; the lanes
// of its R x P accumulators are input channels, summed at the end. All runs of a layer read the same packed input, hence
// the price of a dense convolution and not of one convolution per run.
#include "../inception_conv.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstring>

namespace icconv_mm {
namespace {

#define ICCONV_INLINE inline __attribute__((always_inline))

constexpr int64_t kLanes = 16;  // channels of a group are padded to this in packed input and weight, for every ISA

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Tensors as the kernel sees them. Strides are in floats.
struct Call {
  const Geometry& g;
  const float* input;   // packed [N][H + 2 ph][W + 2 pw][groups * channels]
  const float* weight;  // packed [C_out][9][channels]
  const float* bias;    // [C_out] or null
  float* output;
  int64_t channels;  // of one group, padded
  int64_t pixel, row, image;
  int64_t out_n, out_c, out_h, out_w;
};

template <int L>
struct Lanes {
  typedef float type __attribute__((vector_size(L * sizeof(float)), aligned(L * sizeof(float))));
};

// Keeps a loaded vector in its register: gcc would fold the load into each multiply that uses it.
template <typename V>
ICCONV_INLINE V pinned(V value) {
#if defined(__x86_64__)
  if constexpr (sizeof(V) >= 32) asm("" : "+v"(value));
#endif
  return value;
}

// Sum of the lanes, by halves: in-order addition would cost as much as the multiplications before it.
template <int L>
ICCONV_INLINE float lane_sum(const typename Lanes<L>::type& v) {
  if constexpr (L == 1) {
    return v[0];
  } else {
    typename Lanes<L / 2>::type half[2];
    std::memcpy(half, &v, sizeof(v));
    half[0] += half[1];
    return lane_sum<L / 2>(half[0]);
  }
}

// R output channels from `oc` on, P output pixels of row `oy` from `ox` on.
template <int L, int R, int P>
ICCONV_INLINE void tile(const Call& c, const Run& run, int64_t n, int64_t oc, int64_t oy, int64_t ox) {
  using V = typename Lanes<L>::type;
  const Geometry& g = c.g;
  V acc[R][P] = {};
  const int64_t step = g.stride * c.pixel, filter = kTaps * c.channels;
  const float* origin = c.input + n * c.image + (oy * g.stride + g.max_dilation_h) * c.row +
                        (ox * g.stride + g.max_dilation_w) * c.pixel + run.group * c.channels;
  for (int64_t tap = 0; tap < kTaps; ++tap) {
    const float* in = origin + (tap / 3 - 1) * run.dilation_h * c.row + (tap % 3 - 1) * run.dilation_w * c.pixel;
    const float* w = c.weight + oc * filter + tap * c.channels;
    for (int64_t k = 0; k < c.channels; k += L) {
      V weight[R];
      for (int r = 0; r < R; ++r) weight[r] = pinned(*reinterpret_cast<const V*>(w + r * filter + k));
      for (int p = 0; p < P; ++p) {
        const V value = pinned(*reinterpret_cast<const V*>(in + p * step + k));
        for (int r = 0; r < R; ++r) acc[r][p] += weight[r] * value;
      }
    }
  }
  float* out = c.output + n * c.out_n + oc * c.out_c + oy * c.out_h + ox * c.out_w;
  for (int r = 0; r < R; ++r) {
    const float bias = c.bias ? c.bias[oc + r] : 0.f;
    for (int p = 0; p < P; ++p) out[r * c.out_c + p * c.out_w] = lane_sum<L>(acc[r][p]) + bias;
  }
}

template <int L, int R, int P>
ICCONV_INLINE void tile_row(const Call& c, const Run& run, int64_t n, int64_t oc, int64_t oy) {
  const int64_t width = c.g.out_width;
  if (width < P) {
    for (int64_t ox = 0; ox < width; ++ox) tile<L, R, 1>(c, run, n, oc, oy, ox);
    return;
  }
  // the last tile overlaps its neighbour: the same values are written twice
  for (int64_t ox = 0; ox < width; ox += P) tile<L, R, P>(c, run, n, oc, oy, std::min(ox, width - P));
}

// Output channels [begin, end) of `run`, rows [y0, y1).
template <int L, int R, int P>
ICCONV_INLINE void block(const Call& c, const Run& run, int64_t n, int64_t begin, int64_t end, int64_t y0, int64_t y1) {
  int64_t oc = begin;
  for (; oc + R <= end; oc += R)
    for (int64_t oy = y0; oy < y1; ++oy) tile_row<L, R, P>(c, run, n, oc, oy);
  for (; oc < end; ++oc)
    for (int64_t oy = y0; oy < y1; ++oy) tile_row<L, 1, P * 2>(c, run, n, oc, oy);
}

using Block = void (*)(const Call&, const Run&, int64_t, int64_t, int64_t, int64_t, int64_t);

// One binary serves every machine: the tile is instantiated for each instruction set with the accumulators that its
// registers hold (32 of 16 lanes, 16 of 8, 16 of 4), and chosen at run time.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) void block_avx512(const Call& c, const Run& run, int64_t n, int64_t begin,
                                                     int64_t end, int64_t y0, int64_t y1) {
  block<16, 4, 6>(c, run, n, begin, end, y0, y1);
}
__attribute__((target("avx2,fma"))) void block_avx2(const Call& c, const Run& run, int64_t n, int64_t begin, int64_t end,
                                                    int64_t y0, int64_t y1) {
  block<8, 3, 4>(c, run, n, begin, end, y0, y1);
}
#endif
void block_portable(const Call& c, const Run& run, int64_t n, int64_t begin, int64_t end, int64_t y0, int64_t y1) {
  block<4, 3, 4>(c, run, n, begin, end, y0, y1);
}

Block choose_block() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return block_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return block_avx2;
#endif
  return block_portable;
}

void pack_input(const at::Tensor& x, const Geometry& g, int64_t channels, float* packed) {
  const float* data = x.const_data_ptr<float>();
  const int64_t sn = x.stride(0), sc = x.stride(1), sh = x.stride(2), sw = x.stride(3);
  const int64_t rows = g.height + 2 * g.max_dilation_h, columns = g.width + 2 * g.max_dilation_w;
  const int64_t pixel = g.groups * channels, row = columns * pixel;
  at::parallel_for(0, g.batch * rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* target = packed + i * row;
      std::memset(target, 0, row * sizeof(float));
      const int64_t y = i % rows - g.max_dilation_h;
      if (y < 0 || y >= g.height) continue;
      const float* source = data + i / rows * sn + y * sh;
      target += g.max_dilation_w * pixel;
      for (int64_t group = 0; group < g.groups; ++group, target += channels) {
        const float* first = source + group * g.group_in * sc;
        if (sc == 1) {
          for (int64_t x = 0; x < g.width; ++x)
            std::memcpy(target + x * pixel, first + x * sw, g.group_in * sizeof(float));
        } else {  // a transpose, in blocks of channels that keep the written lines in cache
          for (int64_t k = 0; k < g.group_in; k += kLanes)
            for (int64_t x = 0; x < g.width; ++x)
              for (int64_t j = k; j < std::min(k + kLanes, g.group_in); ++j)
                target[x * pixel + j] = first[j * sc + x * sw];
        }
      }
    }
  });
}

void pack_weight(const at::Tensor& weight, const Geometry& g, int64_t channels, float* packed) {
  const float* data = weight.const_data_ptr<float>();
  const int64_t so = weight.stride(0), si = weight.stride(1), sh = weight.stride(2), sw = weight.stride(3);
  at::parallel_for(0, g.out_channels, 8, [&](int64_t begin, int64_t end) {
    for (int64_t oc = begin; oc < end; ++oc)
      for (int64_t tap = 0; tap < kTaps; ++tap) {
        float* target = packed + (oc * kTaps + tap) * channels;
        const float* source = data + oc * so + tap / 3 * sh + tap % 3 * sw;
        for (int64_t k = 0; k < channels; ++k) target[k] = k < g.group_in ? source[k * si] : 0.f;
      }
  });
}

struct Item {
  int64_t n, run, begin, end, y0, y1;
};

// Work in an order that keeps one block of input rows in the second-level cache while the weights stream past it.
std::vector<Item> make_items(const Call& c) {
  constexpr int64_t kCacheBytes = 384 * 1024, kChannels = 24;
  const Geometry& g = c.g;
  const int64_t row_bytes = std::max<int64_t>(c.row * g.stride * sizeof(float), 1);
  const int64_t rows = std::clamp<int64_t>(kCacheBytes / row_bytes, 1, std::max<int64_t>(g.out_height, 1));
  std::vector<Item> items;
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t y = 0; y < g.out_height; y += rows)
      for (size_t r = 0; r < g.runs.size(); ++r)
        for (int64_t oc = g.runs[r].begin; oc < g.runs[r].end; oc += kChannels)
          items.push_back({n, static_cast<int64_t>(r), oc, std::min(oc + kChannels, g.runs[r].end), y,
                           std::min(y + rows, g.out_height)});
  return items;
}

at::Tensor inception_conv2d_cpu(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                                c10::IntArrayRef pattern, int64_t stride, int64_t groups) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat,
              "inception_conv2d: the CPU kernel takes float32, got ", x.scalar_type(), " and ", weight.scalar_type());
  const Geometry g = make_geometry(x, weight, bias, pattern, stride, groups);
  const auto format = x.suggest_memory_format();
  at::Tensor out = at::empty({g.batch, g.out_channels, g.out_height, g.out_width}, x.options(), format);
  if (out.numel() == 0) return out;

  const int64_t channels = round_up(g.group_in, kLanes), pixel = groups * channels;
  const int64_t row = (g.width + 2 * g.max_dilation_w) * pixel, image = (g.height + 2 * g.max_dilation_h) * row;
  const at::Tensor input = at::empty({g.batch * image}, x.options());
  const at::Tensor filter = at::empty({g.out_channels * kTaps * channels}, x.options());
  pack_input(x, g, channels, input.mutable_data_ptr<float>());
  pack_weight(weight, g, channels, filter.mutable_data_ptr<float>());
  const at::Tensor shift = bias ? bias->contiguous() : at::Tensor();

  const Call call{g,
                  input.const_data_ptr<float>(),
                  filter.const_data_ptr<float>(),
                  bias ? shift.const_data_ptr<float>() : nullptr,
                  out.mutable_data_ptr<float>(),
                  channels,
                  pixel,
                  row,
                  image,
                  out.stride(0),
                  out.stride(1),
                  out.stride(2),
                  out.stride(3)};
  const std::vector<Item> items = make_items(call);
  const Block run_block = choose_block();
  at::parallel_for(0, static_cast<int64_t>(items.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Item& item = items[i];
      run_block(call, g.runs[item.run], item.n, item.begin, item.end, item.y0, item.y1);
    }
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) { m.impl("inception_conv2d_compiled", TORCH_FN(inception_conv2d_cpu)); }

}  // namespace icconv_mm
