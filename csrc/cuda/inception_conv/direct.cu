// Direct convolution and gradients, one thread or block per element: any type, shape, dilation and memory format. They
// serve what the tiled kernels leave: float64, channels that do not fill 16 bytes, GPUs before sm_80.
#include "shares.h"

#include <ATen/AccumulateType.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace icconv_mm::cuda {
namespace {

constexpr int kThreads = 256, kReduceThreads = 128;

struct Strides {
  int64_t n, c, h, w;
  explicit Strides(const at::Tensor& t) : n(t.stride(0)), c(t.stride(1)), h(t.stride(2)), w(t.stride(3)) {}
};

struct Element {
  int n, c, y, x;
};

// The i-th element of [batch, channels, height, width].
__device__ inline Element locate(int64_t i, int channels, int height, int width) {
  const int x = static_cast<int>(i % width), y = static_cast<int>(i / width % height);
  const int64_t image = i / (int64_t(width) * height);
  return {static_cast<int>(image / channels), static_cast<int>(image % channels), y, x};
}

// table: [C_out][3] = (dilation_h, dilation_w, group)
template <typename T, typename Acc>
__global__ void forward_kernel(Geometry32 p, const T* __restrict__ x, Strides xs, const T* __restrict__ weight,
                               const T* __restrict__ bias, const int* __restrict__ table, T* __restrict__ out,
                               Strides os, int64_t size, bool relu) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x) {
    const Element e = locate(i, p.out_channels, p.out_height, p.out_width);
    const int64_t dh = table[3 * e.c], dw = table[3 * e.c + 1], group = table[3 * e.c + 2];
    const T* image = x + e.n * xs.n + group * p.group_in * xs.c;
    const T* filter = weight + int64_t(e.c) * p.group_in * kTaps;
    Acc sum = bias ? static_cast<Acc>(bias[e.c]) : Acc(0);
    for (int tap = 0; tap < kTaps; ++tap) {
      const int64_t y = int64_t(e.y) * p.stride + (tap / 3 - 1) * dh;
      const int64_t column = int64_t(e.x) * p.stride + (tap % 3 - 1) * dw;
      if (y < 0 || y >= p.height || column < 0 || column >= p.width) continue;
      const T* pixel = image + y * xs.h + column * xs.w;
      for (int c = 0; c < p.group_in; ++c)
        sum += static_cast<Acc>(pixel[c * xs.c]) * static_cast<Acc>(filter[c * kTaps + tap]);
    }
    if (relu && sum < Acc(0)) sum = Acc(0);
    out[e.n * os.n + e.c * os.c + e.y * os.h + e.x * os.w] = static_cast<T>(sum);
  }
}

template <typename T, typename Acc>
__global__ void grad_input_kernel(Geometry32 p, const T* __restrict__ grad, Strides gs, const T* __restrict__ weight,
                                  const int* __restrict__ table, T* __restrict__ out, Strides os, int64_t size) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x) {
    const Element e = locate(i, p.in_channels, p.height, p.width);
    const int group = e.c / p.group_in, begin = group * p.group_out;
    Acc sum = 0;
    for (int o = begin; o < begin + p.group_out; ++o) {
      const int64_t dh = table[3 * o], dw = table[3 * o + 1];
      const T* filter = weight + (int64_t(o) * p.group_in + e.c % p.group_in) * kTaps;
      const T* map = grad + e.n * gs.n + o * gs.c;
      for (int tap = 0; tap < kTaps; ++tap) {
        const int64_t y = e.y - (tap / 3 - 1) * dh, x = e.x - (tap % 3 - 1) * dw;
        if (y < 0 || x < 0 || y % p.stride || x % p.stride) continue;
        if (y / p.stride >= p.out_height || x / p.stride >= p.out_width) continue;
        sum += static_cast<Acc>(map[y / p.stride * gs.h + x / p.stride * gs.w]) * static_cast<Acc>(filter[tap]);
      }
    }
    out[e.n * os.n + e.c * os.c + e.y * os.h + e.x * os.w] = static_cast<T>(sum);
  }
}

// A block per filter and input channel; its threads' sums are added in a fixed order.
template <typename T, typename Acc>
__global__ void grad_weight_kernel(Geometry32 p, const T* __restrict__ grad, Strides gs, const T* __restrict__ x,
                                   Strides xs, const int* __restrict__ table, T* __restrict__ out) {
  __shared__ Acc sums[kReduceThreads];
  const int o = static_cast<int>(blockIdx.x / p.group_in), c = static_cast<int>(blockIdx.x % p.group_in);
  const int64_t dh = table[3 * o], dw = table[3 * o + 1], channel = int64_t(table[3 * o + 2]) * p.group_in + c;
  const int64_t pixels = int64_t(p.batch) * p.out_height * p.out_width;
  for (int tap = 0; tap < kTaps; ++tap) {
    Acc sum = 0;
    for (int64_t i = threadIdx.x; i < pixels; i += kReduceThreads) {
      const Element e = locate(i, 1, p.out_height, p.out_width);
      const int64_t y = int64_t(e.y) * p.stride + (tap / 3 - 1) * dh;
      const int64_t column = int64_t(e.x) * p.stride + (tap % 3 - 1) * dw;
      if (y < 0 || y >= p.height || column < 0 || column >= p.width) continue;
      sum += static_cast<Acc>(x[e.n * xs.n + channel * xs.c + y * xs.h + column * xs.w]) *
             static_cast<Acc>(grad[e.n * gs.n + o * gs.c + e.y * gs.h + e.x * gs.w]);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = kReduceThreads / 2; half > 0; half /= 2) {
      if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
      __syncthreads();
    }
    if (threadIdx.x == 0) out[int64_t(blockIdx.x) * kTaps + tap] = static_cast<T>(sums[0]);
    __syncthreads();
  }
}

unsigned grid_for(int64_t size) {
  return static_cast<unsigned>(std::min<int64_t>((size + kThreads - 1) / kThreads, int64_t(1) << 20));
}

}  // namespace

at::Tensor forward_direct(const Geometry32& p, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          Pattern pattern, bool relu) {
  at::Tensor out =
      at::empty({p.batch, p.out_channels, p.out_height, p.out_width}, x.options(), x.suggest_memory_format());
  const at::Tensor filter = weight.contiguous();
  const int* table = channel_table(p, pattern).device;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "inception_conv2d", [&] {
    forward_kernel<scalar_t, at::acc_type<scalar_t, true>>
        <<<grid_for(out.numel()), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
            p, x.const_data_ptr<scalar_t>(), Strides(x), filter.const_data_ptr<scalar_t>(),
            bias.defined() ? bias.const_data_ptr<scalar_t>() : nullptr, table, out.mutable_data_ptr<scalar_t>(),
            Strides(out), out.numel(), relu);
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

at::Tensor grad_input_direct(const Geometry32& p, const at::Tensor& grad, const at::Tensor& weight, Pattern pattern) {
  at::Tensor out = at::empty({p.batch, p.in_channels, p.height, p.width}, grad.options(), grad.suggest_memory_format());
  const at::Tensor filter = weight.contiguous();
  const int* table = channel_table(p, pattern).device;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "inception_conv2d_grad_input", [&] {
    grad_input_kernel<scalar_t, at::acc_type<scalar_t, true>>
        <<<grid_for(out.numel()), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
            p, grad.const_data_ptr<scalar_t>(), Strides(grad), filter.const_data_ptr<scalar_t>(), table,
            out.mutable_data_ptr<scalar_t>(), Strides(out), out.numel());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

at::Tensor grad_weight_direct(const Geometry32& p, const at::Tensor& grad, const at::Tensor& x, Pattern pattern) {
  at::Tensor out = at::empty({p.out_channels, p.group_in, 3, 3}, grad.options());
  const int* table = channel_table(p, pattern).device;
  const int64_t blocks = int64_t(p.out_channels) * p.group_in;
  TORCH_CHECK(blocks < INT_MAX, "inception_conv2d_grad_weight: ", blocks, " filters x channels are too many");
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "inception_conv2d_grad_weight", [&] {
    grad_weight_kernel<scalar_t, at::acc_type<scalar_t, true>>
        <<<static_cast<unsigned>(blocks), kReduceThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
            p, grad.const_data_ptr<scalar_t>(), Strides(grad), x.const_data_ptr<scalar_t>(), Strides(x), table,
            out.mutable_data_ptr<scalar_t>());
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace icconv_mm::cuda
