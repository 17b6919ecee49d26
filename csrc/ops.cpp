// Schemas of the compiled operators. The public operators, their fake kernels and their autograd live in Python
// (icconv_mm/ops); what is compiled here is only a faster kernel for some of their calls.
#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(icconv_mm, m) {
  // pattern: runs (out_channels, dilation_h, dilation_w), flattened.
  m.def(
      "inception_conv2d_compiled(Tensor x, Tensor weight, Tensor? bias, int[] pattern, int stride, int groups)"
      " -> Tensor");
  m.def(
      "inception_conv2d_relu_compiled(Tensor x, Tensor weight, Tensor? bias, int[] pattern, int stride, int groups)"
      " -> Tensor");
  m.def(
      "inception_conv2d_grad_input_compiled(Tensor grad, Tensor weight, int[] size, int[] pattern, int stride,"
      " int groups) -> Tensor");
  m.def(
      "inception_conv2d_grad_weight_compiled(Tensor grad, Tensor x, int[] pattern, int stride, int groups) -> Tensor");
  m.def(
      "pyconv2d_compiled(Tensor x, Tensor[] weights, Tensor? bias, int[] groups, int stride, int dilation) -> Tensor");
  m.def(
      "pyconv2d_relu_compiled(Tensor x, Tensor[] weights, Tensor? bias, int[] groups, int stride, int dilation)"
      " -> Tensor");
  m.def(
      "pyconv2d_grad_input_compiled(Tensor grad, Tensor[] weights, int[] size, int[] groups, int stride, int dilation)"
      " -> Tensor");
  // shapes: three numbers of each level, its output channels and its kernel
  m.def(
      "pyconv2d_grad_weight_compiled(Tensor grad, Tensor x, int[] shapes, int[] groups, int stride, int dilation)"
      " -> Tensor[]");
  m.def(
      "batch_norm_relu__compiled(Tensor(a!) x, Tensor weight, Tensor bias, Tensor mean, Tensor var, float eps,"
      " Tensor? shortcut, bool relu) -> ()");
  // an ordinary convolution by oneDNN, which keeps packed filters; channels_last
  m.def(
      "packed_conv2d_compiled(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation,"
      " int groups, bool relu) -> Tensor");
  m.def(
      "packed_conv2d_add_relu__compiled(Tensor(a!) z, Tensor x, Tensor weight, Tensor? bias, int[] stride,"
      " int[] padding, int[] dilation, int groups) -> ()");
  // (levels, mean, 1 / standard deviation); statistics are those of all levels
  m.def(
      "integrated_norm_compiled(Tensor[] levels, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean,"
      " Tensor(b!)? running_var, Tensor(c!)? batches, float momentum, float eps, bool relu)"
      " -> (Tensor[], Tensor, Tensor)");
  m.def(
      "integrated_norm_grad_compiled(Tensor[] grads, Tensor[] levels, Tensor? weight, Tensor? bias, Tensor mean,"
      " Tensor inverse, bool relu) -> (Tensor[], Tensor, Tensor)");
  m.def("pyramid_sum_compiled(Tensor own, Tensor coarser, Tensor? finer) -> Tensor");
  m.def(
      "deform_conv2d_compiled(Tensor x, Tensor offset, Tensor? mask, Tensor weight, Tensor? bias, int[] stride,"
      " int[] padding, int[] dilation, int groups, int deform_groups) -> Tensor");
  // (for x, the offsets, the mask, the weight)
  m.def(
      "deform_conv2d_grad_compiled(Tensor grad, Tensor x, Tensor offset, Tensor? mask, Tensor weight, int[] stride,"
      " int[] padding, int[] dilation, int groups, int deform_groups) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("forget_packed_weights() -> int");
  m.def("compiled_with_openmp() -> bool", [] {
#ifdef _OPENMP
    return true;
#else
    return false;
#endif
  });
}
