// An ordinary convolution by oneDNN, with filters that lie as it reads them fastest. torch hands it filters in torch's
// own order, at every call.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <torch/library.h>

#include "../../common.h"
#include "../direct/prepared.h"

#include <utility>
#include <vector>

namespace icconv_mm {
namespace {

constexpr int64_t kTag = -1;  // begins the keys of these packed filters; those of other operators begin otherwise

// The result of one of torch's operators for oneDNN. They are called by name, because no header of torch has them.
at::Tensor call(const char* name, std::vector<c10::IValue> arguments) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(arguments);
  return std::move(arguments.back()).toTensor();
}

at::Tensor packed_conv2d(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                         at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
                         bool relu, bool compare) {
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.scalar_type() == weight.scalar_type(),
              "packed_conv2d: expected a map and filters of one dtype, 4-d, got ", x.scalar_type(), x.sizes(), " and ",
              weight.scalar_type(), weight.sizes());
  TORCH_CHECK(stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
              "packed_conv2d: expected two numbers each, got stride ", stride, ", padding ", padding, ", dilation ",
              dilation);
  TORCH_CHECK(groups > 0 && weight.numel() > 0 && x.size(1) == weight.size(1) * groups && weight.size(0) % groups == 0,
              "packed_conv2d: x ", x.sizes(), " and weight ", weight.sizes(), " do not fit ", groups, " groups");
  for (int64_t i = 0; i < 2; ++i)
    TORCH_CHECK(stride[i] > 0 && dilation[i] > 0 && padding[i] >= 0 && padding[i] < kMaxStep &&
                    dilation[i] < kMaxStep && x.size(0) > 0 &&
                    x.size(2 + i) + 2 * padding[i] > dilation[i] * (weight.size(2 + i) - 1),
                "packed_conv2d: a kernel of ", weight.sizes(), " with stride ", stride, ", padding ", padding,
                ", dilation ", dilation, " does not fit a map of ", x.sizes());
  std::vector<int64_t> key{kTag, groups};  // the order that is fastest depends on the size of the map
  for (const at::IntArrayRef numbers : {x.sizes(), stride, padding, dilation})
    key.insert(key.end(), numbers.begin(), numbers.end());
  const auto pack = [&] {
    return Prepared{{},
                    call("mkldnn::_reorder_convolution_weight",
                         {weight, padding.vec(), stride.vec(), dilation.vec(), groups, x.sizes().vec()})};
  };
  const auto filters = prepare({weight}, std::move(key), pack, compare);
  const auto no_scalars = c10::impl::GenericList(c10::OptionalType::create(c10::NumberType::get()));
  return call("mkldnn::_convolution_pointwise", {x, filters->weight, bias, padding.vec(), stride.vec(), dilation.vec(),
                                                 groups, relu ? "relu" : "none", no_scalars, ""});
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) { m.impl("packed_conv2d_compiled", TORCH_FN(packed_conv2d)); }

}  // namespace icconv_mm
