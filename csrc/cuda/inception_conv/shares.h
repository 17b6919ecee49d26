// Which output channels of a call have which dilation, wherever their runs are.
#pragma once

#include <vector>

#include "../tables.h"
#include "inception_conv.h"

namespace icconv_mm::cuda {

// Output channels of one group that share a dilation; in the order of first appearance.
struct Share {
  int group, dilation_h, dilation_w;
  std::vector<int> channels;  // ascending
};
std::vector<Share> make_shares(const Geometry32& p, Pattern pattern);

// [C_out][3] = (dilation_h, dilation_w, group)
const Table& channel_table(const Geometry32& p, Pattern pattern);

}  // namespace icconv_mm::cuda
