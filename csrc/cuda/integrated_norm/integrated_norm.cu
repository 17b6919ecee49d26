// Integrated batch norm on CUDA: three launches forward and three backward, for all levels of a pyramid.
#include "../../integrated_norm/call.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

namespace icconv_mm::cuda {
namespace {

using namespace integrated_norm;

template <typename Body>
__global__ void __launch_bounds__(kThreads) launch(const __grid_constant__ Table table, const Vectors vectors) {
  __shared__ Pair shared[2 * kThreads];
  for (int phase = 0; phase < Body::kPhases; ++phase) {
    Body::run(phase, table, vectors, blockIdx.y, blockIdx.x, threadIdx.x, shared);
    __syncthreads();
  }
}

class OnCard {
 public:
  explicit OnCard(const Tensor& like) : guard_(like.device()) {}

  template <typename Body>
  void run(const Table& table, const Vectors& vectors, int64_t chunks) const {
    const int64_t columns = (table.channels + Body::Where::kChannels - 1) / Body::Where::kChannels;
    TORCH_CHECK(columns <= 65535, "integrated_norm on CUDA takes fewer channels, got ", table.channels);
    const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>(columns));
    launch<Body><<<grid, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(table, vectors);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  c10::cuda::CUDAGuard guard_;
};

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CUDA, m) {
  m.impl("integrated_norm_compiled", TORCH_FN(forward<OnCard>));
  m.impl("integrated_norm_grad_compiled", TORCH_FN(backward<OnCard>));
}

}  // namespace icconv_mm::cuda
