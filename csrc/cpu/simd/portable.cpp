// The tiles for any machine, in vectors of 4 floats.
#include "kernels.h"

#include <cstring>

namespace icconv_mm {
namespace portable {

typedef float Quad __attribute__((vector_size(16)));
#include "vectors_portable.inc"
ICCONV_MM_INLINE Vec accumulate(Vec a, Vec b, Vec sum) { return multiply_add(a, b, sum); }
#include "tiles.inc"

}  // namespace portable

const Kernels& portable_kernels() {
  static const Kernels kernels = portable::table<3, 10, 6, 4, 3>("portable", kNarrowCosts);
  return kernels;
}

}  // namespace icconv_mm
