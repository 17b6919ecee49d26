// The loops of integrated batch norm in AVX2 with FMA.
#include "norm.h"

#if defined(__x86_64__)
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../../host_device.h"

// headers stay outside: their inline functions are shared with code for older machines
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace icconv_mm {
namespace avx2 {

constexpr int kVectorBytes = 32;
#include "norm.inc"

}  // namespace avx2

const NormKernels& avx2_norm() { return avx2::norm(); }

}  // namespace icconv_mm

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
