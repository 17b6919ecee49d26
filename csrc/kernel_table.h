// Which of several kernels of one operator serves a call on a GPU: the one in use, else the one that was the fastest
// there. Here is the only table; icconv_mm/ops/dispatch/kernel_table.py hands over what was measured, and asks here.
// Nothing is measured on the machine that runs.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>

namespace icconv_mm {

// What the table distinguishes. `levels`: the kernels of a pyramidal convolution, '3,5,7,9'; empty for the others.
struct ShapeClass {
  int64_t group_in, group_out, groups, stride, pixels;  // pixels: of all outputs
  std::string levels;
};

// The kernel in use for an operator (`use_kernel`), else that of the table; empty where there is neither or the table
// has the reference, which means that the operator chooses by what the call allows.
std::string chosen_kernel(const char* op, int capability, at::ScalarType dtype, const ShapeClass& shape);

}  // namespace icconv_mm
