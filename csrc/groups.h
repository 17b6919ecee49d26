// Numbers of groups come from callers: nothing is multiplied by them unchecked.
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <limits>

namespace icconv_mm {

// The channels of so many groups, -1 where the number of groups is not positive.
inline int64_t channels_of(int64_t groups, int64_t inside) {
  if (groups < 1) return -1;
  TORCH_CHECK(inside <= std::numeric_limits<int64_t>::max() / groups, groups, " groups of ", inside,
              " channels are more than a number holds");
  return groups * inside;
}

}  // namespace icconv_mm
