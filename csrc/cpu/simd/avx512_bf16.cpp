// The tiles for AVX-512 with bfloat16: as those of AVX-512, a pair of bfloat16 in the place of each float that is read.
#include "kernels.h"

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 10)
// gcc 12 calls the undefined operands of its own intrinsics uninitialized
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstring>

// headers of the standard library stay outside: their inline functions are shared with code for older machines
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")
#endif

namespace icconv_mm::cpu {
namespace avx512_bf16 {

typedef float Quad __attribute__((vector_size(16)));
#include "vectors_avx512.inc"
ICCONV_MM_INLINE Vec accumulate(Vec a, Vec b, Vec sum) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
#include "tiles.inc"

}  // namespace avx512_bf16

const Kernels* avx512_bf16_kernels() {
  static const Kernels kernels = avx512_bf16::table<0, 14, 12, 8, 6, 5, 4>("avx512_bf16", kWideCosts, nullptr);
  return &kernels;
}

}  // namespace icconv_mm::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#elif defined(__x86_64__)

namespace icconv_mm::cpu {

const Kernels* avx512_bf16_kernels() { return nullptr; }

}  // namespace icconv_mm::cpu
#endif
