// Which kernels this processor gets.
#include "kernels.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>

namespace icconv_mm::cpu {
namespace {

bool can_run(const std::string& name) {
#if defined(__x86_64__)
  if (name == "avx512_bf16") return can_run("avx512") && avx512_bf16_kernels() && __builtin_cpu_supports("avx512bf16");
  if (name == "avx512")
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
  if (name == "avx2")
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#endif
  return name == "portable";
}

const Kernels& named(const std::string& name) {
#if defined(__x86_64__)
  if (name == "avx512" || name == "avx512_bf16") return avx512_kernels();
  if (name == "avx2") return avx2_kernels();
#endif
  return portable_kernels();
}

const char* best() {
  for (const char* name : {"avx512_bf16", "avx512", "avx2"})
    if (can_run(name)) return name;
  return "portable";
}

std::string chosen() {
  static const char* const here = best();
  const char* wanted = std::getenv("ICCONV_MM_CPU");
  if (!wanted || !*wanted) return here;
  TORCH_CHECK(can_run(wanted), "ICCONV_MM_CPU=", wanted,
              ": expected avx512_bf16, avx512, avx2 or portable, and one that this processor has");
  return wanted;
}

}  // namespace

const Kernels& kernels() { return named(chosen()); }

const Kernels* pair_kernels() {
#if defined(__x86_64__)
  if (chosen() == "avx512_bf16") return avx512_bf16_kernels();
#endif
  return nullptr;
}

}  // namespace icconv_mm::cpu
