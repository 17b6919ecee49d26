// Batch norm by running statistics, the sum with a shortcut and ReLU, in place and in one pass over memory.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "../../common.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace icconv_mm {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements of a task at least

// y = scale x + shift of a channel, as torch computes it
template <typename A>
struct Affine {
  std::vector<A> scale, shift;
};

template <typename A>
Affine<A> affine(const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean, const at::Tensor& var,
                 double eps) {
  const at::Tensor w = weight.contiguous(), b = bias.contiguous(), m = mean.contiguous(), v = var.contiguous();
  const A *ws = w.const_data_ptr<A>(), *bs = b.const_data_ptr<A>(), *ms = m.const_data_ptr<A>(),
          *vs = v.const_data_ptr<A>();
  Affine<A> each{std::vector<A>(w.numel()), std::vector<A>(w.numel())};
  for (int64_t c = 0; c < w.numel(); ++c) {
    each.scale[c] = ws[c] / std::sqrt(vs[c] + static_cast<A>(eps));
    each.shift[c] = bs[c] - ms[c] * each.scale[c];
  }
  return each;
}

// One value; a NaN stays one, as in torch's ReLU.
template <bool kAdd, bool kRelu, typename T, typename A>
inline T value(T x, A scale, A shift, const T* shortcut, int64_t i) {
  A y = scale * static_cast<A>(x) + shift;
  if constexpr (kAdd) y += static_cast<A>(shortcut[i]);
  if constexpr (kRelu) y = y < A(0) ? A(0) : y;
  return static_cast<T>(y);
}

template <bool kAdd, bool kRelu, typename T, typename A>
void planes(T* x, const T* shortcut, int64_t count, int64_t channels, int64_t pixels, const Affine<A>& p) {
  at::parallel_for(0, count, kGrain / pixels + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const A scale = p.scale[i % channels], shift = p.shift[i % channels];
      for (int64_t j = i * pixels; j < (i + 1) * pixels; ++j)
        x[j] = value<kAdd, kRelu>(x[j], scale, shift, shortcut, j);
    }
  });
}

template <bool kAdd, bool kRelu, typename T, typename A>
void pixels(T* x, const T* shortcut, int64_t count, int64_t channels, const Affine<A>& p) {
  const A *scale = p.scale.data(), *shift = p.shift.data();
  at::parallel_for(0, count, kGrain / channels + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * channels; i < end * channels; i += channels)
      for (int64_t c = 0; c < channels; ++c)
        x[i + c] = value<kAdd, kRelu>(x[i + c], scale[c], shift[c], shortcut, i + c);
  });
}

template <bool kAdd, bool kRelu, typename T, typename A>
void run(at::Tensor& x, const T* shortcut, const Affine<A>& p) {
  T* data = x.mutable_data_ptr<T>();
  const int64_t images = x.size(0), channels = x.size(1), area = x.size(2) * x.size(3);
  if (x.is_contiguous())
    planes<kAdd, kRelu>(data, shortcut, images * channels, channels, area, p);
  else
    pixels<kAdd, kRelu>(data, shortcut, images * area, channels, p);
}

void batch_norm_relu_(at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean,
                      const at::Tensor& var, double eps, const Optional<at::Tensor>& shortcut, bool relu) {
  TORCH_CHECK(x.dim() == 4 && (x.is_contiguous() || x.is_contiguous(at::MemoryFormat::ChannelsLast)),
              "batch_norm_relu_: expected a dense 4-d tensor, NCHW or channels_last, got ", x.sizes(), " with strides ",
              x.strides());
  for (const at::Tensor& each : {weight, bias, mean, var})
    TORCH_CHECK(each.dim() == 1 && each.size(0) == x.size(1) && each.scalar_type() == at::toOpMathType(x.scalar_type()),
                "batch_norm_relu_: expected ", x.size(1), " channels of ", at::toOpMathType(x.scalar_type()), ", got ",
                each.scalar_type(), each.sizes());
  if (shortcut)
    TORCH_CHECK(shortcut->sizes() == x.sizes() && shortcut->scalar_type() == x.scalar_type(),
                "batch_norm_relu_: expected a shortcut like ", x.scalar_type(), x.sizes(), ", got ",
                shortcut->scalar_type(), shortcut->sizes());
  if (x.numel() == 0) return;
  const at::Tensor added = shortcut ? shortcut->contiguous(x.suggest_memory_format()) : at::Tensor();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "batch_norm_relu_", [&] {
    using A = at::opmath_type<scalar_t>;
    const auto p = affine<A>(weight, bias, mean, var, eps);
    const scalar_t* other = shortcut ? added.const_data_ptr<scalar_t>() : nullptr;
    if (other && relu)
      run<true, true>(x, other, p);
    else if (other)
      run<true, false>(x, other, p);
    else if (relu)
      run<false, true>(x, other, p);
    else
      run<false, false>(x, other, p);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) { m.impl("batch_norm_relu__compiled", TORCH_FN(batch_norm_relu_)); }

}  // namespace icconv_mm
