// Which column of which plane holds the product of a channel and a tap (kn2row, https://arxiv.org/abs/1704.04428).
//
// At stride 2 an output pixel reads input pixels of up to four parities, so the input is cut into four planes of every
// second row and column, and each channel and tap belongs to one plane: the products together cost what the dense
// convolution costs. At stride 1 there is one plane, the input.
#pragma once

#include "../geometry.h"
#include "kernels.h"

#include <string>
#include <vector>

namespace icconv_mm::inception_conv::kn2row {

static_assert(kRangeChannels % kVector == 0);  // of `Range`, which has no columns

struct PlanePlan {
  int row, column;  // the parity
  int columns;      // of a group, a multiple of kVector
  int first;        // its first entry in the table of columns
};

// The head of the numbers of a plan; the tables follow, at offsets from the first number.
struct Plan {
  int planes, least_dy, most_dy;  // the shifts of rows
  int sources, alike_channels, columns, alike_columns;
  int total_columns;  // of all planes and groups
  PlanePlan plane[kMaxPlanes];
};

// A plan as one array: the head, then the tables. `without` is what another kernel computes and needs no columns.
std::vector<int> make_plan(const Geometry& g, Pattern pattern, const Range& without);

// One sentence if there is no plan for such a call, else empty.
std::string refusal(const Geometry& g, Pattern pattern);

// How a call is cut so that its workspace keeps to the limit: whole images, or rows of one image.
struct Chunk {
  int64_t image, images;    // the first, and how many
  int64_t row, rows;        // of the output
  int64_t held, held_rows;  // rows of the planes, with those around that taps read
};
std::vector<Chunk> cut(const Geometry& g, int64_t bytes_per_pixel, int64_t above, int64_t below, bool one_image);

int64_t workspace_limit();                   // bytes
int64_t set_workspace_limit(int64_t bytes);  // returns the one before

}  // namespace icconv_mm::inception_conv::kn2row
