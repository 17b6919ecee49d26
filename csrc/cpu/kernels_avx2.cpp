// The tiles for AVX2 with FMA: 16 registers of 8 floats, of which 12 accumulate.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

// headers of the standard library stay outside: their inline functions are shared with code for older machines
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace icconv_mm {
namespace avx2 {

#define ICCONV_INLINE inline __attribute__((always_inline))
typedef float Quad __attribute__((vector_size(16)));
#include "simd_avx2.h"
#include "tiles.h"

Kernels make_table() {
  Kernels k = common_table("avx2");
  fill<1, 10>(k), fill<2, 6>(k), fill<3, 4>(k), fill<4, 3>(k);
  fill_weight<1>(k), fill_weight<2>(k), fill_weight<3>(k);
  const double dot[] = {0, 1.6, 1.25, 1.15, 1.15, 9, 9}, outer[] = {0, 1.3, 1.0, 1.0, 1.05};
  for (int r = 1; r <= kMaxRows; ++r) k.dot_cost[r] = dot[r];
  for (int v = 1; v <= kMaxVectors; ++v) k.outer_cost[v] = outer[v];
  return k;
}

}  // namespace avx2

const Kernels& avx2_kernels() {
  static const Kernels table = avx2::make_table();
  return table;
}

}  // namespace icconv_mm

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
