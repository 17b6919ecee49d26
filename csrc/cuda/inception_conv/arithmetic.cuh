// Which arithmetic of the tensor cores multiplies numbers of a type.
#pragma once

#include "../mma.cuh"
#include "inception_conv.h"

namespace icconv_mm::cuda {

// What `run` makes of an object of the arithmetic; {} for types that the tiled kernels do not take.
template <typename Run>
auto with_arithmetic(at::ScalarType dtype, Precision precision, const Run& run) -> decltype(run(Float32{})) {
  switch (dtype) {
    case at::kHalf:
      return run(Float16{});
    case at::kBFloat16:
      return run(BFloat16{});
    case at::kFloat:
      return precision == Precision::kTf32 ? run(Tf32{}) : run(Float32{});
    default:
      return {};
  }
}

}  // namespace icconv_mm::cuda
