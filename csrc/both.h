// Code that runs on the card and, so that it is tested without one, on the CPU as well.
#pragma once

#ifdef __CUDACC__
#define ICCONV_MM_BOTH __host__ __device__
#define ICCONV_MM_UNROLL _Pragma("unroll")  // keeps sums in registers
#else
#define ICCONV_MM_BOTH
#define ICCONV_MM_UNROLL
#endif
