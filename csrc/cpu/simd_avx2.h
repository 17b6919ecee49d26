// Vectors of 8 floats in AVX2. Included inside a namespace and a target region: see kernels_avx2.cpp.
using Vec = __m256;
constexpr int kLanes = 8, kRegisters = 16;

ICCONV_INLINE Vec zero() { return _mm256_setzero_ps(); }
ICCONV_INLINE Vec load(const float* p) { return _mm256_load_ps(p); }
ICCONV_INLINE Vec load_any(const float* p) { return _mm256_loadu_ps(p); }
ICCONV_INLINE void store_any(float* p, Vec v) { _mm256_storeu_ps(p, v); }
ICCONV_INLINE Vec broadcast(float value) { return _mm256_set1_ps(value); }
ICCONV_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
ICCONV_INLINE Vec relu(Vec v) { return _mm256_max_ps(_mm256_setzero_ps(), v); }  // keeps NaN

// Keeps a loaded vector in its register: gcc would fold the load into each multiplication that uses it.
ICCONV_INLINE Vec pinned(Vec v) {
  asm("" : "+x"(v));
  return v;
}

// Quads of sums: lanes 4 j .. 4 j + 3 are the sums of lanes 4 j .. 4 j + 3 of a, b, c, d.
ICCONV_INLINE Vec sum_quads(Vec a, Vec b, Vec c, Vec d) {
  return _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
}

// The sums of all lanes of a, b, c, d.
ICCONV_INLINE Quad sum_vectors(Vec a, Vec b, Vec c, Vec d) {
  const Vec quads = sum_quads(a, b, c, d);
  return _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps(quads, 1));
}

// 8 rows of 8 floats, transposed.
ICCONV_INLINE void transpose_square(const float* source, int64_t stride, float* target, int64_t target_stride) {
  Vec r[8], t[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(source + i * stride);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      r[i + 2 * k] = _mm256_shuffle_ps(t[i + k], t[i + 2 + k], 0x44);
      r[i + 2 * k + 1] = _mm256_shuffle_ps(t[i + k], t[i + 2 + k], 0xee);
    }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    _mm256_storeu_ps(target + k * target_stride, _mm256_permute2f128_ps(r[k], r[4 + k], 0x20));
    _mm256_storeu_ps(target + (4 + k) * target_stride, _mm256_permute2f128_ps(r[k], r[4 + k], 0x31));
  }
}
