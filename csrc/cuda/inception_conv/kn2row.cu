// kn2row on CUDA: where its passes and tables live. ../../inception_conv/kn2row has what they do.
#include "../../inception_conv/kn2row/kn2row.h"
#include "../tables.h"
#include "inception_conv.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <climits>

namespace icconv_mm::cuda {
namespace {

constexpr int kThreads = 128;

template <typename Pass>
__global__ void __launch_bounds__(kThreads) pass_kernel(const Pass pass, uint32_t count) {
  const uint32_t index = blockIdx.x * kThreads + threadIdx.x;
  if (index < count) pass(index);
}

struct Cuda {
  template <typename Pass>
  static void run(const Pass& pass, int64_t count) {
    TORCH_CHECK(count < UINT_MAX - kThreads, "kn2row: ", count, " items of one pass are too many; lower its workspace");
    const unsigned blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
    if (blocks == 0) return;
    pass_kernel<<<blocks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(pass, static_cast<uint32_t>(count));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  static kn2row::Tables tables(const Geometry& g, Pattern pattern, const Range& without) {
    const Table& table = cached_table(TableKind::kKn2row, {g.groups, g.stride, without.begin, without.end}, pattern,
                                      [&] { return kn2row::make_plan(g, pattern, without); });
    return {table.host.data(), table.device};
  }
  static bool exact_float() { return !tf32_allowed(); }
};

}  // namespace

at::Tensor forward_kn2row(const Geometry& g, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          Pattern pattern, bool relu, bool hybrid) {
  return kn2row::forward<Cuda>(g, x, weight, bias, pattern, relu, hybrid);
}

at::Tensor grad_input_kn2row(const Geometry& g, const at::Tensor& grad, const at::Tensor& weight, Pattern pattern) {
  return kn2row::Call<Cuda>(g, pattern, {}).grad_input(grad, weight);
}

at::Tensor grad_weight_kn2row(const Geometry& g, const at::Tensor& grad, const at::Tensor& x, Pattern pattern) {
  return kn2row::Call<Cuda>(g, pattern, {}).grad_weight(grad, x);
}

}  // namespace icconv_mm::cuda
