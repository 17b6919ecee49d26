// Inception convolution on CUDA, forward: a direct convolution, one thread per output element. All runs of a layer are
// one launch: a table gives each output channel its dilation and its group. fp32, fp64, fp16 and bf16, accumulated in
// fp32 (fp64 in fp64). Not chosen by default: see docs/backends.md.
#include "../inception_conv.h"

#include <ATen/AccumulateType.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

namespace icconv_mm {
namespace {

constexpr int kThreads = 256;

struct Shape {
  int64_t in_channels, height, width, out_channels, out_height, out_width, stride, group_in, total;
  int64_t in_n, in_c, in_h, in_w, out_n, out_c, out_h, out_w;
};

// table: [C_out][3] = (dilation_h, dilation_w, group)
template <typename T, typename Acc>
__global__ void direct(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                       const int* __restrict__ table, T* __restrict__ out, Shape s) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < s.total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t ox = i % s.out_width, oy = i / s.out_width % s.out_height;
    const int64_t oc = i / (s.out_width * s.out_height) % s.out_channels;
    const int64_t n = i / (s.out_width * s.out_height * s.out_channels);
    const int64_t dh = table[3 * oc], dw = table[3 * oc + 1];
    const T* image = x + n * s.in_n + table[3 * oc + 2] * s.group_in * s.in_c;
    const T* filter = weight + oc * s.group_in * 9;
    Acc sum = bias ? static_cast<Acc>(bias[oc]) : Acc(0);
    for (int kh = 0; kh < 3; ++kh) {
      const int64_t y = oy * s.stride + (kh - 1) * dh;
      if (y < 0 || y >= s.height) continue;
      for (int kw = 0; kw < 3; ++kw) {
        const int64_t column = ox * s.stride + (kw - 1) * dw;
        if (column < 0 || column >= s.width) continue;
        const T* pixel = image + y * s.in_h + column * s.in_w;
        for (int64_t c = 0; c < s.group_in; ++c)
          sum += static_cast<Acc>(pixel[c * s.in_c]) * static_cast<Acc>(filter[c * 9 + kh * 3 + kw]);
      }
    }
    out[n * s.out_n + oc * s.out_c + oy * s.out_h + ox * s.out_w] = static_cast<T>(sum);
  }
}

at::Tensor run_table(const Geometry& g, at::Device device) {
  std::vector<int> table(3 * g.out_channels);
  for (const Run& run : g.runs)
    for (int64_t oc = run.begin; oc < run.end; ++oc) {
      table[3 * oc] = static_cast<int>(run.dilation_h);
      table[3 * oc + 1] = static_cast<int>(run.dilation_w);
      table[3 * oc + 2] = static_cast<int>(run.group);
    }
  return at::tensor(table, at::kInt).to(device);
}

at::Tensor inception_conv2d_cuda(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias,
                                 c10::IntArrayRef pattern, int64_t stride, int64_t groups) {
  const Geometry g = make_geometry(x, weight, bias, pattern, stride, groups);
  TORCH_CHECK(x.device() == weight.device() && x.scalar_type() == weight.scalar_type(),
              "inception_conv2d: x is ", x.scalar_type(), " on ", x.device(), ", weight ", weight.scalar_type(), " on ",
              weight.device());
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor out =
      at::empty({g.batch, g.out_channels, g.out_height, g.out_width}, x.options(), x.suggest_memory_format());
  if (out.numel() == 0) return out;
  const at::Tensor filter = weight.contiguous(), table = run_table(g, x.device());
  const at::Tensor shift = bias ? bias->contiguous() : at::Tensor();
  const Shape s{g.in_channels, g.height,    g.width,      g.out_channels, g.out_height,  g.out_width,
                g.stride,      g.group_in,  out.numel(),  x.stride(0),    x.stride(1),   x.stride(2),
                x.stride(3),   out.stride(0), out.stride(1), out.stride(2), out.stride(3)};
  const int64_t blocks = std::min<int64_t>((out.numel() + kThreads - 1) / kThreads, int64_t(1) << 20);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "inception_conv2d_cuda", [&] {
    using Acc = at::acc_type<scalar_t, true>;
    direct<scalar_t, Acc><<<blocks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        x.const_data_ptr<scalar_t>(), filter.const_data_ptr<scalar_t>(),
        bias ? shift.const_data_ptr<scalar_t>() : nullptr, table.const_data_ptr<int>(),
        out.mutable_data_ptr<scalar_t>(), s);
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CUDA, m) { m.impl("inception_conv2d_compiled", TORCH_FN(inception_conv2d_cuda)); }

}  // namespace icconv_mm
