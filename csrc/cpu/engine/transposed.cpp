// See transposed.h.
#include "transposed.h"

#include <optional>

namespace icconv_mm::cpu {

void transposed(const Kernels& k, const Source& grad, int64_t stride, const std::vector<Filters>& filters,
                const std::function<Plan(const Residue&)>& make_plan, at::Tensor& result) {
  // several classes read the same packed gradient
  std::optional<Packed> packed;
  if (stride > 1) packed = pack(k, grad);
  const int64_t sh = result.stride(2), sw = result.stride(3);
  for (int64_t y = 0; y < std::min(stride, result.size(2)); ++y)
    for (int64_t x = 0; x < std::min(stride, result.size(3)); ++x) {
      const Plan plan = make_plan({stride, y, x});
      const at::Tensor weight = pack_weights(plan, filters, result.options());
      const int64_t rows = (result.size(2) - y + stride - 1) / stride,
                    columns = (result.size(3) - x + stride - 1) / stride;
      const Target target{
          result.mutable_data_ptr<float>() + y * sh + x * sw,
          result.size(0),
          rows,
          columns,
          result.stride(0),
          result.stride(1),
          stride * sh,
          stride * sw,
          nullptr,
          false,
      };
      if (packed)
        run(k, plan, weight.const_data_ptr<float>(), *packed, 1, target);
      else
        run(k, plan, weight.const_data_ptr<float>(), grad, 1, target);
    }
}

}  // namespace icconv_mm::cpu
