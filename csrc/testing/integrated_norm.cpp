// The CUDA kernels of integrated batch norm on the processor, thread by thread: for tests, which need no GPU.
#include "../integrated_norm/call.h"

#include <torch/library.h>

namespace icconv_mm::testing {
namespace {

using namespace integrated_norm;

struct OnProcessor {
  explicit OnProcessor(const Tensor&) {}

  template <typename Body>
  void run(const Table& table, const Vectors& vectors, int64_t chunks) const {
    const int64_t columns = (table.channels + Body::Where::kChannels - 1) / Body::Where::kChannels;
    std::vector<Pair> shared(2 * kThreads);
    for (int64_t number = 0; number < chunks; ++number)
      for (int64_t column = 0; column < columns; ++column)
        for (int phase = 0; phase < Body::kPhases; ++phase)
          for (int thread = 0; thread < kThreads; ++thread)
            Body::run(phase, table, vectors, column, number, thread, shared.data());
  }
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(icconv_mm, m) {
  m.def("integrated_norm_thread_by_thread", TORCH_FN(forward<OnProcessor>));
  m.def("integrated_norm_grad_thread_by_thread", TORCH_FN(backward<OnProcessor>));
}

}  // namespace icconv_mm::testing
