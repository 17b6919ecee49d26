// The tiles for any machine, in vectors of 4 floats.
#include "kernels.h"

#include <cstring>

namespace icconv_mm {
namespace portable {

#define ICCONV_INLINE inline __attribute__((always_inline))
typedef float Quad __attribute__((vector_size(16)));
#include "simd_portable.h"
#include "tiles.h"

Kernels make_table() {
  Kernels k = common_table("portable");
  fill<1, 10>(k), fill<2, 6>(k), fill<3, 4>(k), fill<4, 3>(k);
  fill_weight<1>(k), fill_weight<2>(k), fill_weight<3>(k);
  const double dot[] = {0, 1.6, 1.25, 1.15, 1.15, 9, 9}, outer[] = {0, 1.3, 1.0, 1.0, 1.05};
  for (int r = 1; r <= kMaxRows; ++r) k.dot_cost[r] = dot[r];
  for (int v = 1; v <= kMaxVectors; ++v) k.outer_cost[v] = outer[v];
  return k;
}

}  // namespace portable

const Kernels& portable_kernels() {
  static const Kernels table = portable::make_table();
  return table;
}

}  // namespace icconv_mm
