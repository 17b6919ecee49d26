// Which of several kernels of one operator serves a call on a GPU: a table of what was measured there, which Python
// hands over once (icconv_mm/ops/dispatch/kernel_table.py). Nothing is measured on the machine that runs.
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

// The kernel for a call: the one that `force_kernel` asks for, else the table's; empty where there is neither, which
// means that the operator chooses by what the call allows.
std::string chosen_kernel(const char* name, int capability, at::ScalarType dtype, const ShapeClass& shape);

}  // namespace icconv_mm
