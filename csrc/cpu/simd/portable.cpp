// The tiles, and the loops of norms, for any machine, in vectors of 4 floats.
#include "kernels.h"
#include "norm.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace icconv_mm::cpu {
namespace portable {

typedef float Quad __attribute__((vector_size(16)));
#include "vectors_portable.inc"
ICCONV_MM_INLINE Vec accumulate(Vec a, Vec b, Vec sum) { return multiply_add(a, b, sum); }
#include "tiles.inc"

namespace norms {
constexpr int kVectorBytes = 16;
#include "norm.inc"
}  // namespace norms

}  // namespace portable

const Kernels& portable_kernels() {
  static const Kernels kernels = portable::table<3, 10, 6, 4, 3>("portable", kNarrowCosts, &portable::norms::table());
  return kernels;
}

}  // namespace icconv_mm::cpu
