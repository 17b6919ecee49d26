// The tiles for AVX-512: 32 registers of 16 floats, of which 24 accumulate.
#include "kernels.h"

#if defined(__x86_64__)
// gcc 12 calls the undefined operands of its own intrinsics uninitialized
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstring>

// headers of the standard library stay outside: their inline functions are shared with code for older machines
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif

namespace icconv_mm {
namespace avx512 {

#define ICCONV_INLINE inline __attribute__((always_inline))
typedef float Quad __attribute__((vector_size(16)));
#include "simd_avx512.h"
#include "tiles.h"

Kernels make_table() {
  Kernels k = common_table("avx512");
  fill<1, 14>(k), fill<2, 12>(k), fill<3, 8>(k), fill<4, 6>(k), fill<5, 5>(k), fill<6, 4>(k);
  fill_weight<1>(k), fill_weight<2>(k), fill_weight<3>(k), fill_weight<4>(k), fill_weight<5>(k), fill_weight<6>(k);
  const double dot[] = {0, 1.5, 1.09, 1.06, 1.05, 1.06, 1.06}, outer[] = {0, 1.3, 1.0, 1.0, 1.0};
  for (int r = 1; r <= kMaxRows; ++r) k.dot_cost[r] = dot[r];
  for (int v = 1; v <= kMaxVectors; ++v) k.outer_cost[v] = outer[v];
  return k;
}

}  // namespace avx512

const Kernels& avx512_kernels() {
  static const Kernels table = avx512::make_table();
  return table;
}

}  // namespace icconv_mm

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
