// Vectors of 4 floats in the compiler's own terms, which every machine has. Included inside a namespace.
using Vec = Quad;
constexpr int kLanes = 4, kRegisters = 0;  // no sliding tiles

ICCONV_INLINE Vec zero() { return Vec{}; }
ICCONV_INLINE Vec load_any(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
ICCONV_INLINE Vec load(const float* p) { return load_any(p); }
ICCONV_INLINE void store_any(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
ICCONV_INLINE Vec broadcast(float value) { return Vec{value, value, value, value}; }
ICCONV_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return a * b + c; }
ICCONV_INLINE Vec relu(Vec v) { return v < 0.f ? Vec{} : v; }  // keeps NaN
ICCONV_INLINE Vec pinned(Vec v) { return v; }

ICCONV_INLINE Vec sum_quads(Vec a, Vec b, Vec c, Vec d) {
  return Vec{(a[0] + a[1]) + (a[2] + a[3]), (b[0] + b[1]) + (b[2] + b[3]), (c[0] + c[1]) + (c[2] + c[3]),
             (d[0] + d[1]) + (d[2] + d[3])};
}
ICCONV_INLINE Quad sum_vectors(Vec a, Vec b, Vec c, Vec d) { return sum_quads(a, b, c, d); }

ICCONV_INLINE void transpose_square(const float* source, int64_t stride, float* target, int64_t target_stride) {
  for (int i = 0; i < kLanes; ++i)
    for (int k = 0; k < kLanes; ++k) target[k * target_stride + i] = source[i * stride + k];
}
