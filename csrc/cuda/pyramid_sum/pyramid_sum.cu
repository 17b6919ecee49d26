// The sum of a level of a pyramid and of the next coarser one upsampled, in one launch.
#include "../../pyramid_sum/call.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>

namespace icconv_mm::cuda {
namespace {

using namespace pyramid_sum;

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = int64_t{1} << 30;

template <typename T, typename Body>
__global__ void __launch_bounds__(kThreads) sum_kernel(const Arguments<T> args, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t(kThreads) + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads)
    Body::run(args, i);
}

class OnCard {
 public:
  explicit OnCard(const Tensor& like) : guard_(like.device()) {}

  template <typename T, bool kChannelsLast>
  void run(const Arguments<T>& args) const {
    with_elements<T, kChannelsLast>(args, [&](auto body, int64_t count) {
      const int64_t blocks = std::min((count + kThreads - 1) / kThreads, kMaxBlocks);
      sum_kernel<T, decltype(body)>
          <<<static_cast<unsigned>(blocks), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(args, count);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }

 private:
  c10::cuda::CUDAGuard guard_;
};

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CUDA, m) { m.impl("pyramid_sum_compiled", TORCH_FN(run<OnCard>)); }

}  // namespace icconv_mm::cuda
