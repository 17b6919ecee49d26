// See tensors.h.
#include "tensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace icconv_mm {

at::Tensor empty(c10::IntArrayRef size, const at::TensorOptions& options, at::MemoryFormat format) {
  return at::empty(size, options, format);
}

at::Tensor empty_like(const at::Tensor& tensor) { return at::empty_like(tensor); }

}  // namespace icconv_mm
