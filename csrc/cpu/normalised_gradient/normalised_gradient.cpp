// The last step of the backward pass of a batch norm whose sums come from elsewhere, in one pass over memory.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

namespace icconv_mm {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements of a task at least

template <typename A>
struct PerChannel {
  const A *mean, *scale, *slope, *shift;

  A at(int64_t c, A grad, A x) const { return scale[c] * grad + (slope[c] * (x - mean[c]) + shift[c]); }
};

template <typename T, typename A>
void planes(const T* grad, const T* x, T* out, int64_t count, int64_t channels, int64_t pixels,
            const PerChannel<A>& p) {
  at::parallel_for(0, count, kGrain / pixels + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i % channels;
      const PerChannel<A> one{p.mean + c, p.scale + c, p.slope + c, p.shift + c};
      for (int64_t j = i * pixels; j < (i + 1) * pixels; ++j) out[j] = static_cast<T>(one.at(0, grad[j], x[j]));
    }
  });
}

template <typename T, typename A>
void pixels(const T* grad, const T* x, T* out, int64_t count, int64_t channels, const PerChannel<A>& p) {
  at::parallel_for(0, count, kGrain / channels + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * channels; i < end * channels; i += channels)
      for (int64_t c = 0; c < channels; ++c) out[i + c] = static_cast<T>(p.at(c, grad[i + c], x[i + c]));
  });
}

at::Tensor normalised_gradient(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& mean,
                               const at::Tensor& scale, const at::Tensor& slope, const at::Tensor& shift) {
  TORCH_CHECK(x.dim() == 4 && grad.sizes() == x.sizes() && grad.scalar_type() == x.scalar_type(),
              "normalised_gradient: expected two 4-d tensors alike, got ", grad.scalar_type(), grad.sizes(), " and ",
              x.scalar_type(), x.sizes());
  for (const at::Tensor& each : {mean, scale, slope, shift})
    TORCH_CHECK(each.dim() == 1 && each.size(0) == x.size(1) && each.scalar_type() == at::toOpMathType(x.scalar_type()),
                "normalised_gradient: expected ", x.size(1), " channels of ", at::toOpMathType(x.scalar_type()),
                ", got ", each.scalar_type(), each.sizes());
  const auto format = x.suggest_memory_format();
  const at::Tensor from = x.contiguous(format), towards = grad.contiguous(format);
  at::Tensor out = at::empty_like(from);
  if (out.numel() == 0) return out;
  const at::Tensor m = mean.contiguous(), a = scale.contiguous(), b = slope.contiguous(), c = shift.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "normalised_gradient", [&] {
    using A = at::opmath_type<scalar_t>;
    const PerChannel<A> p{m.const_data_ptr<A>(), a.const_data_ptr<A>(), b.const_data_ptr<A>(), c.const_data_ptr<A>()};
    const auto *g = towards.const_data_ptr<scalar_t>(), *in = from.const_data_ptr<scalar_t>();
    auto* result = out.mutable_data_ptr<scalar_t>();
    const int64_t n = x.size(0), channels = x.size(1), area = x.size(2) * x.size(3);
    if (out.is_contiguous())
      planes(g, in, result, n * channels, channels, area, p);
    else
      pixels(g, in, result, n * area, channels, p);
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) { m.impl("normalised_gradient_compiled", TORCH_FN(normalised_gradient)); }

}  // namespace icconv_mm
