// Vectors of 16 floats in AVX-512. Included inside a namespace and a target region: see kernels_avx512.cpp.
using Vec = __m512;
constexpr int kLanes = 16, kRegisters = 32;

ICCONV_INLINE Vec zero() { return _mm512_setzero_ps(); }
ICCONV_INLINE Vec load(const float* p) { return _mm512_load_ps(p); }
ICCONV_INLINE Vec load_any(const float* p) { return _mm512_loadu_ps(p); }
ICCONV_INLINE void store_any(float* p, Vec v) { _mm512_storeu_ps(p, v); }
ICCONV_INLINE Vec broadcast(float value) { return _mm512_set1_ps(value); }
ICCONV_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
ICCONV_INLINE Vec relu(Vec v) { return _mm512_max_ps(_mm512_setzero_ps(), v); }  // keeps NaN

// Keeps a loaded vector in its register: gcc would fold the load into each multiplication that uses it.
ICCONV_INLINE Vec pinned(Vec v) {
  asm("" : "+v"(v));
  return v;
}

// Quads of sums: lanes 4 j .. 4 j + 3 are the sums of lanes 4 j .. 4 j + 3 of a, b, c, d.
ICCONV_INLINE Vec sum_quads(Vec a, Vec b, Vec c, Vec d) {
  const Vec ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const Vec cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  return _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
}

// The sums of all lanes of a, b, c, d.
ICCONV_INLINE Quad sum_vectors(Vec a, Vec b, Vec c, Vec d) {
  const Vec quads = sum_quads(a, b, c, d);
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(quads), _mm512_extractf32x8_ps(quads, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// 16 rows of 16 floats, transposed.
ICCONV_INLINE void transpose_square(const float* source, int64_t stride, float* target, int64_t target_stride) {
  Vec r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(source + i * stride);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)  // r[i + k]: column k of each quad of columns, rows i .. i + 3
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      const __m512d low = _mm512_castps_pd(t[i + k]), high = _mm512_castps_pd(t[i + 2 + k]);
      r[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      r[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const Vec a = _mm512_shuffle_f32x4(r[k], r[4 + k], 0x44), b = _mm512_shuffle_f32x4(r[8 + k], r[12 + k], 0x44);
    const Vec c = _mm512_shuffle_f32x4(r[k], r[4 + k], 0xee), d = _mm512_shuffle_f32x4(r[8 + k], r[12 + k], 0xee);
    _mm512_storeu_ps(target + k * target_stride, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_storeu_ps(target + (4 + k) * target_stride, _mm512_shuffle_f32x4(a, b, 0xdd));
    _mm512_storeu_ps(target + (8 + k) * target_stride, _mm512_shuffle_f32x4(c, d, 0x88));
    _mm512_storeu_ps(target + (12 + k) * target_stride, _mm512_shuffle_f32x4(c, d, 0xdd));
  }
}
