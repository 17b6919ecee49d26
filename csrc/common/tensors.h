// New tensors. torch's headers of these functions take the compiler longer than everything else that an operator needs;
// tensors.cpp alone includes them.
#pragma once

#include <ATen/core/Tensor.h>

#include "common.h"

namespace icconv_mm {

at::Tensor empty(c10::IntArrayRef size, const at::TensorOptions& options,
                 at::MemoryFormat format = at::MemoryFormat::Contiguous);

// Also of the strides of `tensor`, where it is dense.
at::Tensor empty_like(const at::Tensor& tensor);

}  // namespace icconv_mm
