// Tensor-core products of 16 x 8 accumulators, and the loads that feed them. A step of the reduction is 32 bytes of a
// row: 16 elements of 16 bits (m16n8k16) or 8 of fp32 (m16n8k8), so that both have the same layout in bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace icconv_mm::cuda {

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes from global to shared memory; zeros where `valid` is false. `source` must be a valid address anyway.
__device__ inline void copy_async(uint32_t target, const void* source, bool valid) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(target), "l"(source), "r"(valid ? 16 : 0));
#endif
}

__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n");
#endif
}

template <int kPending>
__device__ inline void wait_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
#endif
}

__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
#if __CUDA_ARCH__ >= 800
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
#endif
}

__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
#if __CUDA_ARCH__ >= 800
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
#endif
}

__device__ inline uint32_t load_word(uint32_t address) {
  uint32_t word;
  asm volatile("ld.shared.b32 %0, [%1];\n" : "=r"(word) : "r"(address));
  return word;
}

__device__ inline uint32_t round_to_tf32(uint32_t word) {
  uint32_t rounded = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(rounded) : "f"(__uint_as_float(word)));
#endif
  return rounded;
}

__device__ inline void multiply_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Each arithmetic: its element type, fragments, and c += a * b. A fragment is made of words as they lie in memory.
struct Float16 {
  using Element = __half;
  struct A {
    uint32_t r[4];
  };
  struct B {
    uint32_t r[2];
  };
  static __device__ A make_a(const uint32_t (&w)[4]) { return {{w[0], w[1], w[2], w[3]}}; }
  static __device__ B make_b(uint32_t low, uint32_t high) { return {{low, high}}; }
  static __device__ void multiply(float (&c)[4], const A& a, const B& b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
#endif
  }
  static __device__ Element round(float value) { return __float2half_rn(value); }
  static __device__ float widen(Element value) { return __half2float(value); }
};

struct BFloat16 {
  using Element = __nv_bfloat16;
  using A = Float16::A;
  using B = Float16::B;
  static __device__ A make_a(const uint32_t (&w)[4]) { return Float16::make_a(w); }
  static __device__ B make_b(uint32_t low, uint32_t high) { return {{low, high}}; }
  static __device__ void multiply(float (&c)[4], const A& a, const B& b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
#endif
  }
  static __device__ Element round(float value) { return __float2bfloat16_rn(value); }
  static __device__ float widen(Element value) { return __bfloat162float(value); }
};

struct Tf32 {
  using Element = float;
  using A = Float16::A;
  using B = Float16::B;
  static __device__ A make_a(const uint32_t (&w)[4]) {
    return {{round_to_tf32(w[0]), round_to_tf32(w[1]), round_to_tf32(w[2]), round_to_tf32(w[3])}};
  }
  static __device__ B make_b(uint32_t low, uint32_t high) { return {{round_to_tf32(low), round_to_tf32(high)}}; }
  static __device__ void multiply(float (&c)[4], const A& a, const B& b) { multiply_tf32(c, a.r, b.r); }
  static __device__ Element round(float value) { return value; }
  static __device__ float widen(Element value) { return value; }
};

// fp32 as TF32: a number is the sum of two TF32 numbers up to 2^-22 of itself, and the product of the small parts,
// smaller still, is left out.
struct Float32 {
  using Element = float;
  struct A {
    uint32_t large[4], small[4];
  };
  struct B {
    uint32_t large[2], small[2];
  };
  static __device__ void split(uint32_t word, uint32_t& large, uint32_t& small) {
    large = round_to_tf32(word);
    const float rest = __uint_as_float(word) - __uint_as_float(large);
    small = isfinite(rest) ? round_to_tf32(__float_as_uint(rest)) : 0;  // infinity has no rest
  }
  static __device__ A make_a(const uint32_t (&w)[4]) {
    A a;
#pragma unroll
    for (int i = 0; i < 4; ++i) split(w[i], a.large[i], a.small[i]);
    return a;
  }
  static __device__ B make_b(uint32_t low, uint32_t high) {
    B b;
    split(low, b.large[0], b.small[0]);
    split(high, b.large[1], b.small[1]);
    return b;
  }
  static __device__ void multiply(float (&c)[4], const A& a, const B& b) {
    float part[4] = {};  // tensor cores cut off what does not fit when they add to a large sum; fp32 addition rounds
    multiply_tf32(part, a.small, b.large);
    multiply_tf32(part, a.large, b.small);
    multiply_tf32(part, a.large, b.large);
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] += part[i];
  }
  static __device__ Element round(float value) { return value; }
  static __device__ float widen(Element value) { return value; }
};

constexpr int kVectorBytes = 16;
constexpr int kStepBytes = 32;  // of one reduction step
template <typename Math>
constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(typename Math::Element));
template <typename Math>
constexpr int kStep = 2 * kVector<Math>;

}  // namespace icconv_mm::cuda
