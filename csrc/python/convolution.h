// What a convolution is to autograd: three operators that are linear in each of their tensors.
#pragma once

#include "../common/common.h"

#include <ATen/core/ivalue.h>

#include <string>
#include <vector>

namespace icconv_mm::python {

// A convolution with all that does not change between the calls of a layer. Kernels are the compiled ones.
class Convolution : public torch::CustomClassHolder {
 public:
  virtual bool fits(const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias) const = 0;
  virtual at::Tensor output(const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias) const = 0;
  virtual at::Tensor grad_input(const at::Tensor& grad, at::TensorList weights, c10::IntArrayRef size) const = 0;
  virtual std::vector<at::Tensor> grad_weight(const at::Tensor& grad, const at::Tensor& x,
                                              at::TensorList weights) const = 0;
  // The gradients that are asked for, by the operators in Python, which are differentiable themselves and run anywhere.
  virtual std::vector<at::Tensor> backward(const at::Tensor& grad, const at::Tensor& x, at::TensorList weights,
                                           bool to_x, bool to_weights, const std::string& backend) const = 0;
};

}  // namespace icconv_mm::python
