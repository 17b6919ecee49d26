// Which of its kernels a call of an operator asks for.
#pragma once

#include "../kernel_table.h"
#include "cut.h"
#include "tables.h"

#include <c10/util/Exception.h>
#include <c10/util/string_view.h>

#include <string>

namespace icconv_mm::cuda {

// A kernel by name (`<operator>_by`) serves the call, or it is an error; one in use, or of the table, gives way to what
// takes the call.
struct KernelRequest {
  std::string kernel;  // empty where there is no preference
  bool by_name;

  static KernelRequest named(c10::string_view kernel) { return {std::string(kernel), true}; }
  // The kernel in use, else that of the table, else `by_default`.
  static KernelRequest usual(const char* op, at::ScalarType dtype, const ShapeClass& shape, const char* by_default) {
    const Device& device = current_device();
    const std::string kernel = chosen_kernel(op, 10 * device.major + device.minor, dtype, shape);
    return {kernel.empty() ? by_default : kernel, false};
  }

  bool is(const char* name) const { return kernel == name; }
  bool allows(const char* name) const { return !by_name || is(name); }
  // `refusal`: why the kernel cannot serve the call; empty if it can
  bool granted(const std::string& refusal) const {
    TORCH_CHECK(!by_name || refusal.empty(), refusal);
    return refusal.empty();
  }
};

// The kernel that serves a call.
struct Choice {
  std::string kernel;
  Cut cut;  // of the kernels of tiles

  bool is(const char* name) const { return kernel == name; }
};

}  // namespace icconv_mm::cuda
