// Batch norm by running statistics, the sum with a shortcut and ReLU, in place and in one pass over memory.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include "../operators.h"
#include "../simd/kernels.h"
#include "../simd/norm.h"

#include <cmath>
#include <vector>

namespace icconv_mm::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements of a task at least

// y = scale x + shift of a channel, as torch computes it
template <typename A>
struct Affine {
  std::vector<A> scale, shift;
};

// The values of a channel's parameter, which is as exact as sums are or of the dtype of the map.
template <typename T, typename A = at::opmath_type<T>>
std::vector<A> values(const at::Tensor& parameter) {
  const at::Tensor each = parameter.contiguous();
  const auto copy = [&](const auto* p) { return std::vector<A>(p, p + each.numel()); };
  if (each.scalar_type() == c10::CppTypeToScalarType<A>::value) return copy(each.const_data_ptr<A>());
  return copy(each.const_data_ptr<T>());
}

template <typename T, typename A = at::opmath_type<T>>
Affine<A> affine(const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean, const at::Tensor& var,
                 double eps) {
  Affine<A> each{values<T>(weight), values<T>(bias)};
  const std::vector<A> means = values<T>(mean), vars = values<T>(var);
  for (size_t c = 0; c < means.size(); ++c) {
    each.scale[c] /= std::sqrt(vars[c] + static_cast<A>(eps));
    each.shift[c] -= means[c] * each.scale[c];
  }
  return each;
}

template <typename T>
void run(at::Tensor& x, const T* shortcut, bool relu, const Affine<at::opmath_type<T>>& p) {
  const bool last = !x.is_contiguous();
  const int64_t channels = x.size(1), area = x.size(2) * x.size(3), columns = last ? channels : area;
  T* data = x.mutable_data_ptr<T>();
  const auto loop = norm_loops<T>().affine[last][shortcut != nullptr][relu];
  at::parallel_for(0, x.numel() / columns, kGrain / columns + 1, [&](int64_t begin, int64_t end) {
    NormArguments<T> args{};
    args.columns = args.x_row = args.row = columns;
    for (int64_t row = begin; row < end; row += args.rows) {  // a plane is of one channel
      args.rows = last ? end - begin : 1;
      args.x = args.out = data + row * columns;
      args.grad = shortcut ? shortcut + row * columns : nullptr;
      const int64_t channel = last ? 0 : row % channels;
      args.scale = p.scale.data() + channel, args.bias = p.shift.data() + channel;
      loop(args);
    }
  });
}

}  // namespace

void batch_norm_relu_(at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean,
                      const at::Tensor& var, double eps, const Optional<at::Tensor>& shortcut, bool relu) {
  TORCH_CHECK(x.dim() == 4 && (x.is_contiguous() || x.is_contiguous(at::MemoryFormat::ChannelsLast)),
              "batch_norm_relu_: expected a dense 4-d tensor, NCHW or channels_last, got ", x.sizes(), " with strides ",
              x.strides());
  const auto exact = at::toOpMathType(x.scalar_type());
  for (const at::Tensor& each : {weight, bias, mean, var})
    TORCH_CHECK(each.dim() == 1 && each.size(0) == x.size(1) &&
                    (each.scalar_type() == exact || each.scalar_type() == x.scalar_type()),
                "batch_norm_relu_: expected ", x.size(1), " channels of ", exact, " or of the dtype of the map, got ",
                each.scalar_type(), each.sizes());
  if (shortcut)
    TORCH_CHECK(shortcut->sizes() == x.sizes() && shortcut->scalar_type() == x.scalar_type(),
                "batch_norm_relu_: expected a shortcut like ", x.scalar_type(), x.sizes(), ", got ",
                shortcut->scalar_type(), shortcut->sizes());
  if (x.numel() == 0) return;
  const at::Tensor added = shortcut ? shortcut->contiguous(x.suggest_memory_format()) : at::Tensor();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "batch_norm_relu_", [&] {
    const scalar_t* other = shortcut ? added.const_data_ptr<scalar_t>() : nullptr;
    run(x, other, relu, affine<scalar_t>(weight, bias, mean, var, eps));
  });
}

}  // namespace icconv_mm::cpu
