// Strides of a map [N, C, H, W] or of filters, in elements, as kernels of all devices take them.
#pragma once

#include <cstdint>

namespace icconv_mm {

struct Strides {
  int64_t image, channel, row, column;
};

}  // namespace icconv_mm
