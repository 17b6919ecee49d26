// Which kernels this processor gets.
#include "kernels.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>

namespace icconv_mm {
namespace {

bool can_run(const std::string& name) {
#if defined(__x86_64__)
  if (name == "avx512")
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
  if (name == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return name == "portable";
}

const Kernels& named(const std::string& name) {
#if defined(__x86_64__)
  if (name == "avx512") return avx512_kernels();
  if (name == "avx2") return avx2_kernels();
#endif
  return portable_kernels();
}

}  // namespace

const Kernels& kernels() {
  const char* wanted = std::getenv("ICCONV_MM_CPU");
  if (wanted && *wanted) {
    TORCH_CHECK(can_run(wanted), "ICCONV_MM_CPU=", wanted,
                ": expected avx512, avx2 or portable, and one that this processor has");
    return named(wanted);
  }
  static const char* const best = can_run("avx512") ? "avx512" : can_run("avx2") ? "avx2" : "portable";
  return named(best);
}

}  // namespace icconv_mm
