// The loops of batch norms, compiled once per instruction set, and how the rest of the CPU code calls them.
#pragma once

#include <ATen/OpMathType.h>

#include <cstdint>
#include <type_traits>

#include "kernels.h"

namespace icconv_mm::cpu {

// `rows` rows of `columns` values side by side. A channel is a column (channels_last: a row is a pixel), or the one row
// is of one channel (a plane of NCHW).
template <typename T>
struct NormArguments {
  using A = at::opmath_type<T>;
  const T *x, *grad;  // grad: backward only; in `affine` what is added
  T* out;             // the result, or the gradient of x
  int64_t rows, columns;
  int64_t x_row, row;                  // from a row to the next, of x; of grad and out
  const A *mean, *scale, *bias;        // y = scale (x - mean) + bias; of the column, or the first of the row
  const A *grad_scale, *slope, *rest;  // dx = grad_scale g + slope (x - mean) + rest
  A* sums;                             // two sums of a channel: [2, columns], or [2]
};

// By channels_last, and by whether a ReLU follows.
template <typename T>
struct NormLoops {
  using Loop = void (*)(const NormArguments<T>&);
  Loop moments[2];       // sums of d = x - x of the first row (of the first pixel) and of d^2
  Loop apply[2][2];      // out = y
  Loop sums[2][2];       // sums of g and of g (x - mean), g: grad where ReLU let it pass
  Loop gradient[2][2];   // out = dx
  Loop affine[2][2][2];  // out = scale x + bias, without and with grad added
};

struct NormKernels {
  NormLoops<float> of_float;
  NormLoops<double> of_double;
  NormLoops<at::Half> of_half;
  NormLoops<at::BFloat16> of_bfloat16;
};

// Those of the best kernels of this processor.
template <typename T>
const NormLoops<T>& norm_loops() {
  const NormKernels& all = *kernels().norms;
  if constexpr (std::is_same_v<T, float>)
    return all.of_float;
  else if constexpr (std::is_same_v<T, double>)
    return all.of_double;
  else if constexpr (std::is_same_v<T, at::Half>)
    return all.of_half;
  else
    return all.of_bfloat16;
}

}  // namespace icconv_mm::cpu
