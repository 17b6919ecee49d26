// One call of integrated batch norm or of its gradient: checks, the table of levels, and three launches.
#pragma once

#include "../common/common.h"
#include "kernels.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <tuple>
#include <vector>

namespace icconv_mm::integrated_norm {

using at::Tensor;

constexpr int64_t kChunks = 1024;      // of all levels, about: several for each processor of a large GPU
constexpr int64_t kChunkPixels = 256;  // of a chunk, at least

// A level of one pixel, or of one channel, is both.
inline bool all_channels_last(at::TensorList levels) {
  return std::all_of(levels.begin(), levels.end(),
                     [](const Tensor& x) { return x.is_contiguous(at::MemoryFormat::ChannelsLast); }) &&
         std::any_of(levels.begin(), levels.end(), [](const Tensor& x) { return !x.is_contiguous(); });
}

inline void check_levels(at::TensorList levels) {
  TORCH_CHECK(!levels.empty() && levels.size() <= kMaxLevels, "integrated_norm takes 1 to ", kMaxLevels,
              " levels, got ", levels.size());
  for (const Tensor& x : levels)
    TORCH_CHECK(x.dim() == 4 && x.size(1) == levels[0].size(1) && x.scalar_type() == levels[0].scalar_type() &&
                    x.device() == levels[0].device() && x.numel() > 0,
                "integrated_norm takes levels [N, C, H, W] alike that are not empty, got ", x.scalar_type(), x.sizes(),
                " beside ", levels[0].scalar_type(), levels[0].sizes());
}

// The levels in one memory format, as the table names them; the tensors must outlive the launches.
struct Levels {
  bool channels_last;
  std::vector<Tensor> x, grad, out;
  Table table;

  Levels(at::TensorList given, at::TensorList grads) : channels_last(all_channels_last(given)) {
    const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    table = {};
    for (size_t l = 0; l < given.size(); ++l) {
      x.push_back(given[l].contiguous(format));
      if (!grads.empty()) {
        TORCH_CHECK(grads[l].sizes() == x[l].sizes() && grads[l].scalar_type() == x[l].scalar_type(),
                    "integrated_norm: expected a gradient like ", x[l].sizes(), ", got ", grads[l].sizes());
        grad.push_back(grads[l].contiguous(format));
      }
      out.push_back(at::empty_like(x[l]));  // the strides of x
      table.total += x[l].size(0) * x[l].size(2) * x[l].size(3);
    }
    table.levels = static_cast<int>(given.size());
    table.channels = given[0].size(1);
    table.chunk_pixels = std::max(kChunkPixels, (table.total + kChunks - 1) / kChunks);
    for (size_t l = 0; l < given.size(); ++l) {
      const int64_t area = x[l].size(2) * x[l].size(3), channels = table.channels, pixels = x[l].size(0) * area;
      table.level[l] = {x[l].const_data_ptr(),
                        grad.empty() ? nullptr : grad[l].const_data_ptr(),
                        out[l].mutable_data_ptr(),
                        pixels,
                        area,
                        area * channels,
                        channels_last ? channels : 1,
                        channels_last ? 1 : area,
                        table.chunks};
      table.chunks += (pixels + table.chunk_pixels - 1) / table.chunk_pixels;
    }
  }
};

inline float* floats(const Optional<Tensor>& tensor, const Table& table, bool writes = false) {
  if (!tensor) return nullptr;
  TORCH_CHECK(tensor->scalar_type() == at::kFloat && tensor->is_contiguous() && tensor->numel() == table.channels,
              "integrated_norm takes ", table.channels, " float32 parameters and statistics, got ",
              tensor->scalar_type(), tensor->sizes());
  return writes ? tensor->mutable_data_ptr<float>() : const_cast<float*>(tensor->const_data_ptr<float>());
}

template <typename T, bool kLast, bool kRelu>
struct Kind {
  using Type = T;
  static constexpr bool kChannelsLast = kLast, kRectifies = kRelu;
};

template <typename T, typename Body>
void by_format(bool channels_last, bool relu, const Body& body) {
  if (channels_last)
    relu ? body(Kind<T, true, true>()) : body(Kind<T, true, false>());
  else
    relu ? body(Kind<T, false, true>()) : body(Kind<T, false, false>());
}

// Calls body(Kind) with a call's dtype, format and ReLU as types.
template <typename Body>
void by_kind(const Levels& levels, bool relu, const Body& body) {
  AT_DISPATCH_SWITCH(
      levels.x[0].scalar_type(), "integrated_norm",
      AT_DISPATCH_CASE(at::kFloat, [&] { by_format<scalar_t>(levels.channels_last, relu, body); })
          AT_DISPATCH_CASE(at::kHalf, [&] { by_format<scalar_t>(levels.channels_last, relu, body); })
              AT_DISPATCH_CASE(at::kBFloat16, [&] { by_format<scalar_t>(levels.channels_last, relu, body); }));
}

// (levels, mean, 1 / standard deviation); running statistics and the number of batches are updated in place.
template <typename Launcher>
std::tuple<std::vector<Tensor>, Tensor, Tensor> forward(at::TensorList given, const Optional<Tensor>& weight,
                                                        const Optional<Tensor>& bias,
                                                        const Optional<Tensor>& running_mean,
                                                        const Optional<Tensor>& running_var,
                                                        const Optional<Tensor>& batches, double momentum, double eps,
                                                        bool relu) {
  check_levels(given);
  Levels levels(given, {});
  const Table& table = levels.table;
  const auto options = given[0].options().dtype(at::kFloat);
  const Tensor vectors = at::empty({2, table.channels}, options);
  const Tensor mean = at::empty({table.channels}, options), inverse = at::empty({table.channels}, options);
  const Tensor partial = at::empty({table.chunks, table.channels, 2}, options);
  Vectors v{};
  v.partial = partial.mutable_data_ptr<float>();
  v.weight = floats(weight, table), v.bias = floats(bias, table);
  float* rows = vectors.mutable_data_ptr<float>();
  v.mean = mean.mutable_data_ptr<float>(), v.inverse = inverse.mutable_data_ptr<float>();
  v.scale = rows, v.shift = rows + table.channels;
  v.running_mean = floats(running_mean, table, true), v.running_var = floats(running_var, table, true);
  v.batches = batches ? batches->mutable_data_ptr<int64_t>() : nullptr;
  v.momentum = momentum, v.eps = eps;
  const Launcher launcher(given[0]);
  by_kind(levels, relu, [&](auto kind) {
    using K = decltype(kind);
    using T = typename K::Type;
    launcher.template run<Moments<T, K::kChannelsLast>>(table, v, table.chunks);
    launcher.template run<Combine>(table, v, 1);
    launcher.template run<Apply<T, K::kChannelsLast, K::kRectifies>>(table, v, table.chunks);
  });
  return {levels.out, mean, inverse};
}

// (gradients of the levels, of the weight, of the bias)
template <typename Launcher>
std::tuple<std::vector<Tensor>, Tensor, Tensor> backward(at::TensorList grads, at::TensorList given,
                                                         const Optional<Tensor>& weight, const Optional<Tensor>& bias,
                                                         const Tensor& mean, const Tensor& inverse, bool relu) {
  check_levels(given);
  TORCH_CHECK(grads.size() == given.size(), "integrated_norm: expected ", given.size(), " gradients, got ",
              grads.size());
  Levels levels(given, grads);
  const Table& table = levels.table;
  const auto options = given[0].options().dtype(at::kFloat);
  const Tensor vectors = at::empty({3, table.channels}, options);
  const Tensor to_weight = at::empty({table.channels}, options), to_bias = at::empty({table.channels}, options);
  const Tensor partial = at::empty({table.chunks, table.channels, 2}, options);
  Vectors v{};
  v.partial = partial.mutable_data_ptr<float>();
  v.weight = floats(weight, table), v.bias = floats(bias, table);
  v.mean = floats(mean, table), v.inverse = floats(inverse, table);
  float* rows = vectors.mutable_data_ptr<float>();
  v.scale = rows, v.shift = rows + table.channels, v.slope = rows + 2 * table.channels;
  v.grad_weight = to_weight.mutable_data_ptr<float>(), v.grad_bias = to_bias.mutable_data_ptr<float>();
  const Launcher launcher(given[0]);
  by_kind(levels, relu, [&](auto kind) {
    using K = decltype(kind);
    using T = typename K::Type;
    launcher.template run<Sums<T, K::kChannelsLast, K::kRectifies>>(table, v, table.chunks);
    launcher.template run<CombineSums>(table, v, 1);
    launcher.template run<ApplyGradient<T, K::kChannelsLast, K::kRectifies>>(table, v, table.chunks);
  });
  return {levels.out, to_weight, to_bias};
}

}  // namespace icconv_mm::integrated_norm
