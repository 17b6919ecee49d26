// Schemas of the compiled operators. The public operators, their fake kernels and their autograd live in Python
// (icconv_mm/ops); what is compiled here is only a faster kernel for some of their calls.
#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(icconv_mm, m) {
  // pattern: runs (out_channels, dilation_h, dilation_w), flattened.
  m.def(
      "inception_conv2d_compiled(Tensor x, Tensor weight, Tensor? bias, int[] pattern, int stride, int groups)"
      " -> Tensor");

  // CUDA alone: the inception convolution with ReLU, and its gradients for an input of height x width and the weight.
  m.def(
      "inception_conv2d_relu_cuda(Tensor x, Tensor weight, Tensor? bias, int[] pattern, int stride, int groups)"
      " -> Tensor");
  m.def(
      "inception_conv2d_grad_input_cuda(Tensor grad, Tensor weight, int height, int width, int[] pattern, int stride,"
      " int groups) -> Tensor");
  m.def(
      "inception_conv2d_grad_weight_cuda(Tensor grad, Tensor x, int[] pattern, int stride, int groups) -> Tensor");
}
