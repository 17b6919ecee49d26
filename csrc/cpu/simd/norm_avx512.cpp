// The loops of integrated batch norm in AVX-512.
#include "norm.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../../host_device.h"

// headers stay outside: their inline functions are shared with code for older machines
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif

namespace icconv_mm {
namespace avx512 {

constexpr int kVectorBytes = 64;
#include "norm.inc"

}  // namespace avx512

const NormKernels& avx512_norm() { return avx512::norm(); }

}  // namespace icconv_mm

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
