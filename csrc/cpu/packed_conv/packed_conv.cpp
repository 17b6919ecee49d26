// An ordinary convolution by oneDNN, with filters that lie as it reads them fastest. torch hands it filters in torch's
// own order, at every call.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include "../engine/prepared.h"
#include "../operators.h"

#include <array>
#include <utility>
#include <vector>

namespace icconv_mm::cpu {
namespace {

constexpr int64_t kTag = -1;  // begins the keys of these packed filters; those of other operators begin otherwise

// Calls one of torch's operators for oneDNN and returns what it does. They are called by name, because no header of
// torch has them.
at::Tensor call(const char* name, const char* overload, std::vector<c10::IValue> arguments) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).callBoxed(arguments);
  return std::move(arguments.back()).toTensor();
}

c10::IValue no_scalars() { return c10::impl::GenericList(c10::OptionalType::create(c10::NumberType::get())); }

struct Settings {
  at::IntArrayRef stride, padding, dilation;
  int64_t groups;

  std::array<int64_t, 4> output_size(const at::Tensor& x, const at::Tensor& weight) const {
    std::array<int64_t, 4> size{x.size(0), weight.size(0)};
    for (int64_t i = 0; i < 2; ++i)
      size[2 + i] = (x.size(2 + i) + 2 * padding[i] - dilation[i] * (weight.size(2 + i) - 1) - 1) / stride[i] + 1;
    return size;
  }
};

void check(const at::Tensor& x, const at::Tensor& weight, const Settings& s) {
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.scalar_type() == weight.scalar_type(),
              "packed_conv2d: expected a map and filters of one dtype, 4-d, got ", x.scalar_type(), x.sizes(), " and ",
              weight.scalar_type(), weight.sizes());
  TORCH_CHECK(s.stride.size() == 2 && s.padding.size() == 2 && s.dilation.size() == 2,
              "packed_conv2d: expected two numbers each, got stride ", s.stride, ", padding ", s.padding, ", dilation ",
              s.dilation);
  TORCH_CHECK(
      s.groups > 0 && weight.numel() > 0 && x.size(1) == weight.size(1) * s.groups && weight.size(0) % s.groups == 0,
      "packed_conv2d: x ", x.sizes(), " and weight ", weight.sizes(), " do not fit ", s.groups, " groups");
  for (int64_t i = 0; i < 2; ++i)
    TORCH_CHECK(s.stride[i] > 0 && s.dilation[i] > 0 && s.padding[i] >= 0 && s.padding[i] < kMaxStep &&
                    s.dilation[i] < kMaxStep && x.size(0) > 0 &&
                    x.size(2 + i) + 2 * s.padding[i] > s.dilation[i] * (weight.size(2 + i) - 1),
                "packed_conv2d: a kernel of ", weight.sizes(), " with stride ", s.stride, ", padding ", s.padding,
                ", dilation ", s.dilation, " does not fit a map of ", x.sizes());
}

at::Tensor packed(const at::Tensor& x, const at::Tensor& weight, const Settings& s) {
  std::vector<int64_t> key{kTag, s.groups};  // the order that is fastest depends on the size of the map
  for (const at::IntArrayRef numbers : {x.sizes(), s.stride, s.padding, s.dilation})
    key.insert(key.end(), numbers.begin(), numbers.end());
  const auto pack = [&] {
    return Prepared{{},
                    call("mkldnn::_reorder_convolution_weight", "",
                         {weight, s.padding.vec(), s.stride.vec(), s.dilation.vec(), s.groups, x.sizes().vec()})};
  };
  return prepare({weight}, std::move(key), pack)->weight;
}

}  // namespace

at::Tensor packed_conv2d(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                         at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
                         bool relu) {
  const Settings s{stride, padding, dilation, groups};
  check(x, weight, s);
  at::Tensor y = call(
      "mkldnn::_convolution_pointwise", "",
      {x, packed(x, weight, s), bias, padding.vec(), stride.vec(), dilation.vec(), groups, "none", no_scalars(), ""});
  return relu ? y.relu_() : y;  // oneDNN's own ReLU makes zeros of values that are none
}

// z = relu(conv(x) + z). A new map of this size would be zeroed by the system, page by page, and read again.
void packed_conv2d_add_relu_(at::Tensor& z, const at::Tensor& x, const at::Tensor& weight,
                             const Optional<at::Tensor>& bias, at::IntArrayRef stride, at::IntArrayRef padding,
                             at::IntArrayRef dilation, int64_t groups) {
  const Settings s{stride, padding, dilation, groups};
  check(x, weight, s);
  const auto size = s.output_size(x, weight);
  TORCH_CHECK(z.sizes() == at::IntArrayRef(size) && z.scalar_type() == x.scalar_type() &&
                  z.is_contiguous(at::MemoryFormat::ChannelsLast),
              "packed_conv2d_add_relu_: expected a channels_last addend ", x.scalar_type(), at::IntArrayRef(size),
              ", got ", z.scalar_type(), z.sizes(), " with strides ", z.strides());
  if (z.is_alias_of(x)) {  // the convolution would read what it has written
    z.add_(packed_conv2d(x, weight, bias, stride, padding, dilation, groups, false)).relu_();
    return;
  }
  call("mkldnn::_convolution_pointwise_", "binary",
       {z, x, packed(x, weight, s), bias, padding.vec(), stride.vec(), dilation.vec(), groups, "add", 1.0,
        c10::IValue(), no_scalars(), ""});
  z.relu_();
}

}  // namespace icconv_mm::cpu
