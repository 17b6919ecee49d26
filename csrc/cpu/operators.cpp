// See operators.h.
#include "operators.h"

#include <torch/library.h>

#include "engine/prepared.h"

namespace icconv_mm::cpu {

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) {
  m.impl("inception_conv2d_compiled", TORCH_FN(inception_conv2d));
  m.impl("inception_conv2d_relu_compiled", TORCH_FN(inception_conv2d_relu));
  m.impl("inception_conv2d_grad_input_compiled", TORCH_FN(inception_conv2d_grad_input));
  m.impl("inception_conv2d_grad_weight_compiled", TORCH_FN(inception_conv2d_grad_weight));
  m.impl("pyconv2d_compiled", TORCH_FN(pyconv2d));
  m.impl("pyconv2d_relu_compiled", TORCH_FN(pyconv2d_relu));
  m.impl("pyconv2d_grad_input_compiled", TORCH_FN(pyconv2d_grad_input));
  m.impl("pyconv2d_grad_weight_compiled", TORCH_FN(pyconv2d_grad_weight));
  m.impl("packed_conv2d_compiled", TORCH_FN(packed_conv2d));
  m.impl("packed_conv2d_add_relu__compiled", TORCH_FN(packed_conv2d_add_relu_));
  m.impl("batch_norm_relu__compiled", TORCH_FN(batch_norm_relu_));
  m.impl("integrated_norm_compiled", TORCH_FN(integrated_norm));
  m.impl("integrated_norm_grad_compiled", TORCH_FN(integrated_norm_grad));
  m.impl("deform_conv2d_compiled", TORCH_FN(deform_conv2d));
  m.impl("deform_conv2d_grad_compiled", TORCH_FN(deform_conv2d_grad));
  m.impl("pyramid_sum_compiled", TORCH_FN(pyramid_sum));
}

TORCH_LIBRARY_IMPL(icconv_mm, CatchAll, m) { m.impl("forget_packed_weights", TORCH_FN(forget_prepared)); }

}  // namespace icconv_mm::cpu
