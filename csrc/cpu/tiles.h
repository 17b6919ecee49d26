// The tiles, in terms of the vectors of one instruction set. Included inside a namespace after a simd_*.h and
// accumulate(a, b, sum), the product of two vectors of elements added to sums.
//
// dot:    R output channels x P pixels; the lanes of an accumulator are input channels, summed at the end. One channel
//         costs nearly the same as many: this is what serves the short runs of a dilation pattern.
// sliding: a dot tile of one output channel whose taps lie in rows at equal distances: a pixel is loaded once for all
//         taps of its row, where a plain tile of one channel loads a vector for every product.
// outer:  V vectors of output channels x P pixels; the lanes are output channels, an input is broadcast.
// weight: R output channels x V vectors of input channels, summed over pixels.
// group weight: R output channels of each group x K taps; the lanes are the input channels of several groups.
//
// All read packed input in which a pixel has kBlock neighbouring channels; S is the stride in pixels.

#include "write.h"

ICCONV_INLINE Quad load_quad(const float* p) {
  Quad q;
  std::memcpy(&q, p, sizeof q);
  return q;
}

// N results that lie `step` floats apart; their biases begin at `first` and lie `bias_step` apart.
template <int N>
ICCONV_INLINE void finish(Quad v, float* out, int64_t step, const Store& s, int64_t first, int64_t bias_step) {
  if (N == 4 && step == 1) {
    if (s.flags & kAccumulate) v += load_quad(out);
    if (s.flags & kBias) {
      const float* bias = s.bias + first;
      v += bias_step ? load_quad(bias) : Quad{bias[0], bias[0], bias[0], bias[0]};
    }
    if (s.flags & kRelu) v = v < 0.f ? Quad{} : v;
    std::memcpy(out, &v, sizeof v);
    return;
  }
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    float value = v[i];
    if (s.flags & kAccumulate) value += out[i * step];
    if (s.flags & kBias) value += s.bias[first + i * bias_step];
    if (s.flags & kRelu) value = value < 0.f ? 0.f : value;
    out[i * step] = value;
  }
}

// Pixels p .. p + N - 1 of one row.
template <int N, int R, int P>
ICCONV_INLINE void finish_pixels(const Vec (&acc)[R][P], int r, int p, const Store& s) {
  const Quad v = sum_vectors(acc[r][p], acc[r][N > 1 ? p + 1 : p], acc[r][N > 2 ? p + 2 : p], acc[r][N > 3 ? p + 3 : p]);
  finish<N>(v, s.out + r * s.channel + p * s.pixel, s.pixel, s, r, 0);
}

template <int R, int P>
ICCONV_INLINE void finish_row(const Vec (&acc)[R][P], int r, const Store& s) {
#pragma GCC unroll 16
  for (int p = 0; p + 4 <= P; p += 4) finish_pixels<4>(acc, r, p, s);
  if constexpr (P % 4 != 0) finish_pixels<P % 4>(acc, r, P / 4 * 4, s);
}

// Output channels that are neighbours in memory: four, or three, of one pixel make one store.
template <int R, int P>
ICCONV_INLINE void finish_channels(const Vec (&acc)[R][P], const Store& s) {
  constexpr int rest = R / 4 * 4;
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
    float* out = s.out + p * s.pixel;
    if constexpr (R >= 4)
      finish<4>(sum_vectors(acc[0][p], acc[1][p], acc[2][p], acc[3][p]), out, 1, s, 0, 1);
    if constexpr (R % 4 == 3)
      finish<3>(sum_vectors(acc[rest][p], acc[rest + 1][p], acc[rest + 2][p], acc[rest + 2][p]), out + rest, 1, s,
                rest, 1);
  }
  if constexpr (R % 4 == 1) finish_row(acc, rest, s);
  if constexpr (R % 4 == 2) {  // two channels of two pixels
#pragma GCC unroll 16
    for (int p = 0; p < P; p += 2) {
      const int q = p + 1 < P ? p + 1 : p;
      const Quad v = sum_vectors(acc[rest][p], acc[rest + 1][p], acc[rest][q], acc[rest + 1][q]);
      finish<2>(v, s.out + p * s.pixel + rest, 1, s, rest, 1);
      if (q != p) finish<2>(Quad{v[2], v[3]}, s.out + q * s.pixel + rest, 1, s, rest, 1);
    }
  }
}

template <int R, int P>
ICCONV_INLINE void finish_dot(const Vec (&acc)[R][P], const Store& s) {
  if (s.flags & kRaw) {
#pragma GCC unroll 32
    for (int i = 0; i < R * P; ++i) store_any(s.out + i * kLanes, acc[i / P][i % P]);
  } else if (s.channel == 1) {
    finish_channels(acc, s);
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) finish_row(acc, r, s);
  }
}

template <int R, int P, int S>
void dot_tile(const float* x, const Term* term, const Term* end, const float* weight, const Store& store) {
  Vec acc[R][P];
#pragma GCC unroll 32
  for (int i = 0; i < R * P; ++i) acc[i / P][i % P] = zero();
  for (; term != end; ++term) {
    const float* in = x + term->offset;
    for (int64_t n = term->count; n; --n, in += kLanes, weight += R * kLanes) {
      if constexpr (R <= P) {
        Vec w[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) w[r] = pinned(load(weight + r * kLanes));
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
          Vec value = load(in + p * S * kBlock);
          if constexpr (R > 1) value = pinned(value);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) acc[r][p] = accumulate(value, w[r], acc[r][p]);
        }
      } else {
        Vec value[P];
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) value[p] = pinned(load(in + p * S * kBlock));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          Vec w = load(weight + r * kLanes);
          if constexpr (P > 1) w = pinned(w);
#pragma GCC unroll 16
          for (int p = 0; p < P; ++p) acc[r][p] = accumulate(value[p], w, acc[r][p]);
        }
      }
    }
  }
  finish_dot(acc, store);
}

template <int P, int K, int D>
void sliding_tile(const float* x, const Term* term, const Term* end, const float* weight, const Store& store) {
  Vec acc[1][P];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) acc[0][p] = zero();
  for (; term != end; term += K) {  // a row of taps, the leftmost first
    const float* in = x + term->offset;
    const int64_t tap = term->count * kLanes;
    for (int64_t n = term->count; n; --n, in += kLanes, weight += kLanes) {
      Vec w[K];
#pragma GCC unroll 16
      for (int k = 0; k < K; ++k) w[k] = pinned(load(weight + k * tap));
#pragma GCC unroll 32
      for (int q = 0; q < P + (K - 1) * D; ++q) {
        const Vec value = pinned(load(in + q * kBlock));
#pragma GCC unroll 16
        for (int k = 0; k < K; ++k)
          if (q >= k * D && q < k * D + P) acc[0][q - k * D] = accumulate(value, w[k], acc[0][q - k * D]);
      }
    }
    weight += (K - 1) * tap;
  }
  finish_dot(acc, store);
}

// Output channels from number `first` on of `Count` pixels, [kLanes][kLanes]: transposed, because the pixels of a channel are
// nearer to each other in memory than its channels. Not inlined: it would be in every tile, several times.
template <int Count>
__attribute__((noinline)) void finish_square(const float* pixels, int64_t first, float* out, const Store& s) {
  alignas(64) float channels[kLanes * kLanes];
  transpose_square(pixels, kLanes, channels, kLanes);
  for (int64_t i = 0; i < kLanes && first + i < s.channels; ++i, out += s.channel)
    write(channels + i * kLanes, Count, s.flags & kBias ? s.bias[first + i] : 0.f, out, s.pixel, s.flags);
}

// One vector of output channels of one pixel, of which fewer are wanted.
__attribute__((noinline)) inline void finish_lanes(const Vec& v, int64_t first, float* out, const Store& s) {
  float value[kLanes];
  store_any(value, v);
  for (int64_t i = 0; i < kLanes && first + i < s.channels; ++i)
    finish<1>(Quad{value[i]}, out + i, 1, s, first + i, 1);
}

template <int V, int P>
ICCONV_INLINE void finish_outer(const Vec (&acc)[V][P], const Store& s) {
  if (s.channel != 1) {
    constexpr int rest = P % kLanes;
    alignas(64) float pixels[kMaxPixels + kMaxLanes][kLanes] = {};
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* out = s.out + v * kLanes * s.channel;
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) store_any(pixels[p], acc[v][p]);
      for (int p = 0; p + kLanes <= P; p += kLanes) finish_square<kLanes>(pixels[p], v * kLanes, out + p * s.pixel, s);
      if constexpr (rest > 0) finish_square<rest>(pixels[P - rest], v * kLanes, out + (P - rest) * s.pixel, s);
    }
    return;
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* out = s.out + p * s.pixel + v * kLanes;
      if ((v + 1) * kLanes > s.channels) {
        finish_lanes(acc[v][p], v * kLanes, out, s);
        continue;
      }
      Vec value = acc[v][p];
      if (s.flags & kAccumulate) value += load_any(out);
      if (s.flags & kBias) value += load_any(s.bias + v * kLanes);
      if (s.flags & kRelu) value = relu(value);
      store_any(out, value);
    }
}

template <int V, int P, int S>
void outer_tile(const float* x, const Term* term, const Term* end, const float* weight, const Store& store) {
  Vec acc[V][P];
#pragma GCC unroll 32
  for (int i = 0; i < V * P; ++i) acc[i / P][i % P] = zero();
  for (; term != end; ++term) {
    const float* in = x + term->offset;
    for (int64_t n = term->count; n; --n, ++in, weight += V * kLanes) {
      Vec w[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) w[v] = pinned(load(weight + v * kLanes));
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        Vec value = broadcast(in[p * S * kBlock]);
        if constexpr (V > 1) value = pinned(value);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[v][p] = accumulate(value, w[v], acc[v][p]);
      }
    }
  }
  finish_outer(acc, store);
}

template <int R, int V>
void weight_tile(const Rectangle& a, float* sums) {
  Vec acc[R][V];
  int64_t channel[R];
#pragma GCC unroll 32
  for (int i = 0; i < R * V; ++i) acc[i / V][i % V] = load_any(sums + i * kLanes);
  for (int r = 0; r < R; ++r) channel[r] = a.grad_channel[r];
  for (int64_t y = 0; y < a.height; ++y) {
    const float *x = a.x + y * a.x_row, *grad = a.grad + y * a.grad_row;
    for (int64_t n = a.width; n; --n, x += a.x_pixel, grad += kBlock) {
      Vec value[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) value[v] = pinned(load(x + v * kLanes));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        Vec g = broadcast(grad[channel[r]]);
        if constexpr (V > 1) g = pinned(g);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = multiply_add(g, value[v], acc[r][v]);
      }
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < R * V; ++i) store_any(sums + i * kLanes, acc[i / V][i % V]);
}

template <int R, int K>
void group_weight_tile(const Line& line, float* sums) {
  Vec acc[K][R];
  int64_t tap[K];
#pragma GCC unroll 32
  for (int i = 0; i < K * R; ++i) acc[i / R][i % R] = zero();
  for (int k = 0; k < K; ++k) tap[k] = line.taps[k];
  const float *x = line.x, *grad = line.grad;
  for (int64_t n = line.width; n; --n, x += line.x_pixel, grad += R * kLanes) {
    Vec g[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) g[r] = pinned(load_any(grad + r * kLanes));
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) {
      Vec value = load(x + tap[k]);
      if constexpr (R > 1) value = pinned(value);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[k][r] = multiply_add(g[r], value, acc[k][r]);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < K * R; ++i) store_any(sums + i * kLanes, load_any(sums + i * kLanes) + acc[i / R][i % R]);
}

inline void transpose(const float* source, int64_t stride, float* target, int64_t pixels, int64_t channels) {
  for (int64_t x = 0; x < pixels; x += kLanes)
    for (int64_t c = 0; c < channels; c += kLanes) {
      const float* from = source + c * stride + x;
      float* to = target + x * kBlock + c;
      if (x + kLanes <= pixels && c + kLanes <= channels) {
        transpose_square(from, stride, to, kBlock);
        continue;
      }
      for (int64_t j = 0; j < kLanes && x + j < pixels; ++j)
        for (int64_t i = 0; i < kLanes && c + i < channels; ++i) to[j * kBlock + i] = from[i * stride + j];
    }
}

// The sums of four accumulators at once.
inline void sum_lanes_of_four(const float* accumulators, int64_t count, int64_t width, float* sums) {
  float quads[kLanes];
  store_any(quads, sum_quads(load_any(accumulators), load_any(accumulators + kLanes),
                             load_any(accumulators + 2 * kLanes), load_any(accumulators + 3 * kLanes)));
  for (int64_t first = 0; first < kLanes; first += width, sums += count) {
    Quad sum = load_quad(quads + first);
    for (int64_t i = 4; i < width; i += 4) sum += load_quad(quads + first + i);
    std::memcpy(sums, &sum, sizeof sum);
  }
}

inline void sum_lanes(const float* accumulators, int64_t count, int64_t width, float* sums) {
  if (width >= 4 && count >= 4) {
    for (int64_t i = 0; i < count; i += 4) {
      const int64_t at = i + 4 <= count ? i : count - 4;  // some twice at the end
      sum_lanes_of_four(accumulators + at * kLanes, count, width, sums + at);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < kLanes / width; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < width; ++k) sum += accumulators[i * kLanes + j * width + k];
      sums[j * count + i] = sum;
    }
}

// --- tables, by the number of pixels

template <int R, int S, int... P>
void fill_dot(Kernels& k, std::integer_sequence<int, P...>) {
  ((k.dot[S - 1][R][P + 1] = dot_tile<R, P + 1, S>), ...);
}

template <int V, int S, int... P>
void fill_outer(Kernels& k, std::integer_sequence<int, P...>) {
  ((k.outer[S - 1][V][P + 1] = outer_tile<V, P + 1, S>), ...);
}

template <int N, int Pixels>
void fill(Kernels& k) {
  const auto pixels = std::make_integer_sequence<int, Pixels>();
  k.pixels[N] = Pixels;
  fill_dot<N, 1>(k, pixels);
  fill_dot<N, 2>(k, pixels);
  if constexpr (N <= kMaxVectors) {
    fill_outer<N, 1>(k, pixels);
    fill_outer<N, 2>(k, pixels);
  }
}

// As wide as a plain tile, or as accumulators and weights fit into registers; 0 where that is not worth it.
constexpr int slide_pixels(int taps, int plain) {
  const int fitting = kRegisters - 1 - taps, pixels = fitting < plain ? fitting : plain;
  return pixels < 4 ? 0 : pixels;
}

template <int I, int Most, int... P>
void fill_slide(Kernels& k, std::integer_sequence<int, P...>) {
  k.slide_pixels[I] = Most;
  ((k.sliding[I][Most - P] = sliding_tile<Most - P, kSlides[I].taps, kSlides[I].dilation>), ...);
}

// Those of more than half of the widest: narrower ones mostly serve narrow maps.
template <int Plain, int... I>
void fill_slides(Kernels& k, std::integer_sequence<int, I...>) {
  (fill_slide<I, slide_pixels(kSlides[I].taps, Plain)>(
       k, std::make_integer_sequence<int, (slide_pixels(kSlides[I].taps, Plain) + 1) / 2>()),
   ...);
}

template <int R>
void fill_weight(Kernels& k) {
  k.weight[R][1] = weight_tile<R, 1>;
  k.weight[R][2] = weight_tile<R, 2>;
  k.weight[R][4] = weight_tile<R, 4>;
}

// Those whose sums, gradients and one input fit into registers; one row always.
template <int R, int K>
void fill_group_weight(Kernels& k) {
  if constexpr (R == 1 || R * (K + 1) + 1 <= kRegisters) k.group_weight[R][K] = group_weight_tile<R, K>;
}

template <int... I>
void fill_group_weights(Kernels& k, std::integer_sequence<int, I...>) {
  (fill_group_weight<I / kMaxTaps + 1, I % kMaxTaps + 1>(k), ...);
}

template <int... Pixels, int... I>
void fill_all(Kernels& k, std::integer_sequence<int, I...>) {
  (fill<I + 1, Pixels>(k), ...);
}

template <int... I>
void fill_weights(Kernels& k, std::integer_sequence<int, I...>) {
  (fill_weight<I + 1>(k), ...);
}

// Tiles of 1, 2, ... rows (or vectors) of so many `Pixels`, weight tiles of up to `Rows` rows.
template <int Rows, int... Pixels>
Kernels table(const char* name, const Costs& costs) {
  Kernels k{};
  k.name = name;
  k.lanes = kLanes;
  k.costs = costs;
  k.transpose = transpose;
  k.sum_lanes = sum_lanes;
  fill_all<Pixels...>(k, std::make_integer_sequence<int, sizeof...(Pixels)>());
  constexpr int plain[] = {Pixels...};
  fill_slides<plain[0]>(k, std::make_integer_sequence<int, kSlideCount>());
  fill_weights(k, std::make_integer_sequence<int, Rows>());
  if constexpr (Rows > 0) fill_group_weights(k, std::make_integer_sequence<int, kMaxGroupRows * kMaxTaps>());
  return k;
}
