// The tiles, and the loops of norms, for AVX2 with FMA: 16 registers of 8 floats, of which 12 accumulate.
#include "kernels.h"
#include "norm.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

// headers of the standard library stay outside: their inline functions are shared with code for older machines
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace icconv_mm::cpu {
namespace avx2 {

typedef float Quad __attribute__((vector_size(16)));
#include "vectors_avx2.inc"
ICCONV_MM_INLINE Vec accumulate(Vec a, Vec b, Vec sum) { return multiply_add(a, b, sum); }
#include "tiles.inc"

namespace norms {
constexpr int kVectorBytes = 32;
#include "norm.inc"
}  // namespace norms

}  // namespace avx2

const Kernels& avx2_kernels() {
  static const Kernels kernels = avx2::table<3, 10, 6, 4, 3>("avx2", kNarrowCosts, &avx2::norms::table());
  return kernels;
}

}  // namespace icconv_mm::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
