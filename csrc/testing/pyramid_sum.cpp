// The CUDA kernel of the sum of two levels of a pyramid on the processor, element by element: for tests.
#include "../pyramid_sum/call.h"

#include <torch/library.h>

namespace icconv_mm::testing {
namespace {

using namespace pyramid_sum;

struct OnProcessor {
  explicit OnProcessor(const Tensor&) {}

  template <typename T, bool kChannelsLast>
  void run(const Arguments<T>& args) const {
    with_elements<T, kChannelsLast>(args, [&](auto body, int64_t count) {
      for (int64_t i = 0; i < count; ++i) decltype(body)::run(args, i);
    });
  }
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(icconv_mm, m) { m.def("pyramid_sum_thread_by_thread", TORCH_FN(run<OnProcessor>)); }

}  // namespace icconv_mm::testing
