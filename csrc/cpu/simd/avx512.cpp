// The tiles, and the loops of norms, for AVX-512: 32 registers of 16 floats, of which 24 accumulate.
#include "kernels.h"
#include "norm.h"

#if defined(__x86_64__)
// gcc 12 calls the undefined operands of its own intrinsics uninitialized
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

// headers of the standard library stay outside: their inline functions are shared with code for older machines
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif

namespace icconv_mm::cpu {
namespace avx512 {

typedef float Quad __attribute__((vector_size(16)));
#include "vectors_avx512.inc"
ICCONV_MM_INLINE Vec accumulate(Vec a, Vec b, Vec sum) { return multiply_add(a, b, sum); }
#include "tiles.inc"

namespace norms {
constexpr int kVectorBytes = 64;
#include "norm.inc"
}  // namespace norms

}  // namespace avx512

const Kernels& avx512_kernels() {
  static const Kernels kernels = avx512::table<6, 14, 12, 8, 6, 5, 4>("avx512", kWideCosts, &avx512::norms::table());
  return kernels;
}

}  // namespace icconv_mm::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
