// What code says to compilers: where it runs, and what they must inline or unroll.
#pragma once

// BOTH: code of the GPU that, so that it is tested without one, runs on the CPU as well.
#ifdef __CUDACC__
#define ICCONV_MM_BOTH __host__ __device__
#define ICCONV_MM_BOTH_INLINE __host__ __device__ __forceinline__
#define ICCONV_MM_UNROLL _Pragma("unroll")  // keeps sums in registers
#else
#define ICCONV_MM_BOTH
#define ICCONV_MM_BOTH_INLINE inline
#define ICCONV_MM_UNROLL
#endif

// Code of the CPU alone: what one instruction set compiles must not be called from another's.
#define ICCONV_MM_INLINE inline __attribute__((always_inline))
