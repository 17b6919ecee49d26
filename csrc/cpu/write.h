// Writes results that are not vectors of memory. Included inside a namespace: by tiles.h for each instruction set, and by
// engine.cpp, where a call through the table of kernels would cost more than wider vectors gain.

// `count` results of one output channel, `step` floats apart. A step of 1 is a loop over vectors, if the compiler knows it.
template <typename Step>
inline void write_apart(const float* values, int64_t count, float bias, float* out, Step step, int flags) {
  for (int64_t i = 0; i < count; ++i) {
    float value = values[i] + bias;
    if (flags & kAccumulate) value += out[i * step];
    out[i * step] = flags & kRelu && value < 0.f ? 0.f : value;
  }
}

inline void write(const float* values, int64_t count, float bias, float* out, int64_t step, int flags) {
  if (step == 1)
    write_apart(values, count, bias, out, std::integral_constant<int64_t, 1>(), flags);
  else
    write_apart(values, count, bias, out, step, flags);
}
