// Integrated batch norm over the levels of a pyramid: the work of one block of threads, the same on a GPU and, for
// tests, on the processor. Forward: moments of chunks, their combination, normalisation. Backward: sums of chunks,
// their combination, the gradient of the input. Each is one launch for all levels, which a table of pointers names.
//
// A block's work is a sequence of phases; a phase is a function of the thread, and all threads end a phase before the
// next. What they exchange is in the block's shared memory.
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/host_device.h"

namespace icconv_mm::integrated_norm {

constexpr int kThreads = 256;
constexpr int kMaxLevels = 16;

// Level l: pixel p of [0, pixels) and channel c lie at (p / area) * image + (p % area) * pixel + c * channel.
struct Level {
  const void *x, *grad;  // grad: backward only, with the strides of x
  void* out;             // the result, or the gradient of x; the strides of x
  int64_t pixels, area, image, pixel, channel;
  int64_t first_chunk;  // number of the first of its chunks
};

struct Table {
  Level level[kMaxLevels];
  int levels;
  int64_t chunks, chunk_pixels, channels, total;  // total: pixels of all levels
};

// Memory that calls share, [channels] unless it says otherwise; null where there is none.
struct Vectors {
  float* partial;                          // [2, chunks, channels] of a first launch
  const float *weight, *bias;              //
  float *mean, *inverse;                   // of the batch, and 1 / standard deviation
  float *scale, *shift;                    // y = scale x + shift
  float *running_mean, *running_var;       //
  int64_t* batches;                        // [1]
  float *grad_weight, *grad_bias, *slope;  // backward; dx = scale g + slope (x - mean) + shift
  double momentum, eps;
};

struct Pair {
  double first, second;
};

// Which channel and which of the pixel lanes a thread has. channels_last: 32 channels side by side; else one channel.
template <bool kChannelsLast>
struct Place {
  static constexpr int kChannels = kChannelsLast ? 32 : 1;
  static constexpr int kLanes = kThreads / kChannels;
  int64_t channel;
  int lane;
  ICCONV_MM_BOTH_INLINE Place(int64_t block, int thread)
      : channel(block * kChannels + thread % kChannels), lane(thread / kChannels) {}
};

// Where a thread's pixels of a chunk lie, one after the other: a lane takes every kLanes-th. From one to the next it
// adds, and divides once for each image: a 64-bit division costs more than all else that is done with a pixel.
template <int kLanes>
class Walk {
 public:
  ICCONV_MM_BOTH_INLINE Walk(const Level& level, int64_t first, int64_t channel)
      : level_(level), start_(first / level.area * level.image + channel * level.channel), inside_(first % level.area) {
  }
  ICCONV_MM_BOTH_INLINE int64_t at() const { return start_ + inside_ * level_.pixel; }
  ICCONV_MM_BOTH_INLINE void step() {
    inside_ += kLanes;
    if (inside_ < level_.area) return;
    start_ += inside_ / level_.area * level_.image;
    inside_ %= level_.area;
  }

 private:
  const Level& level_;
  int64_t start_, inside_;  // of the image and the channel; the pixel within the image
};

// The pixels of a chunk.
struct Chunk {
  const Level* level;
  int64_t begin, end;
  ICCONV_MM_BOTH_INLINE Chunk(const Table& table, int64_t number) {
    int l = 0;
    while (l + 1 < table.levels && table.level[l + 1].first_chunk <= number) ++l;
    level = &table.level[l];
    begin = (number - level->first_chunk) * table.chunk_pixels;
    end = begin + table.chunk_pixels < level->pixels ? begin + table.chunk_pixels : level->pixels;
  }
  // The pixels of a thread; the first of all threads of a channel.
  template <typename Where>
  ICCONV_MM_BOTH_INLINE Walk<Where::kLanes> walk(const Where& where) const {
    return {*level, begin + where.lane, where.channel};
  }
  template <typename Where>
  ICCONV_MM_BOTH_INLINE int64_t first(const Where& where) const {
    return Walk<Where::kLanes>(*level, begin, where.channel).at();
  }
};

// Number of phases that add the pairs of `lanes` threads to that of the first.
ICCONV_MM_BOTH_INLINE constexpr int tree_phases(int lanes) { return lanes <= 1 ? 0 : 1 + tree_phases(lanes / 2); }

// Phase `step` of that: the upper half of what is left is added to the lower.
template <int kChannels, int kLanes>
ICCONV_MM_BOTH_INLINE void add_upper_half(Pair* shared, int step, int thread) {
  const int half = kLanes >> (step + 1);
  if (thread / kChannels >= half) return;
  shared[thread].first += shared[thread + half * kChannels].first;
  shared[thread].second += shared[thread + half * kChannels].second;
}

// Blocks (channel block, chunk). Sums of d = x - x(first pixel of the chunk) and of d^2: without that shift, a mean far
// from zero would cost the variance its digits.
template <typename T, bool kChannelsLast>
struct Moments {
  using Where = Place<kChannelsLast>;
  static constexpr int kPhases = 2 + tree_phases(Where::kLanes);

  static ICCONV_MM_BOTH_INLINE void run(int phase, const Table& table, const Vectors& v, int64_t block, int64_t number,
                                        int thread, Pair* shared) {
    const Where where(block, thread);
    const Chunk chunk(table, number);
    const bool is_there = where.channel < table.channels;
    const T* x = static_cast<const T*>(chunk.level->x);
    if (phase == 0) {
      float sum = 0, squares = 0;
      if (is_there) {
        const float shift = static_cast<float>(x[chunk.first(where)]);
        Walk<Where::kLanes> walk = chunk.walk(where);
        for (int64_t p = chunk.begin + where.lane; p < chunk.end; p += Where::kLanes, walk.step()) {
          const float d = static_cast<float>(x[walk.at()]) - shift;
          sum += d;
          squares += d * d;
        }
      }
      shared[thread] = {sum, squares};
    } else if (phase < kPhases - 1) {
      add_upper_half<Where::kChannels, Where::kLanes>(shared, phase - 1, thread);
    } else if (where.lane == 0 && is_there) {
      const double count = static_cast<double>(chunk.end - chunk.begin), mean = shared[thread].first / count;
      const double shift = static_cast<float>(x[chunk.first(where)]);
      float* to = v.partial + 2 * (number * table.channels + where.channel);
      to[0] = static_cast<float>(shift + mean);
      to[1] = static_cast<float>(shared[thread].second - mean * shared[thread].first);  // squared deviations
    }
  }
};

// Blocks of 32 channels. Mean and variance of all levels, and what the last launch multiplies and adds; running
// statistics.
struct Combine {
  using Where = Place<true>;
  static constexpr int kTree = tree_phases(Where::kLanes);
  static constexpr int kPhases = 3 + 2 * kTree;

  static ICCONV_MM_BOTH_INLINE void run(int phase, const Table& table, const Vectors& v, int64_t block, int64_t,
                                        int thread, Pair* shared) {
    const Where where(block, thread);
    const bool is_there = where.channel < table.channels;
    const int64_t c = where.channel;
    if (phase == 0) {  // the mean first: deviations from it are exact
      double sum = 0;
      for (int64_t number = where.lane; is_there && number < table.chunks; number += Where::kLanes) {
        const Chunk chunk(table, number);
        sum += static_cast<double>(chunk.end - chunk.begin) * v.partial[2 * (number * table.channels + c)];
      }
      shared[thread] = {sum, 0};
    } else if (phase <= kTree) {
      add_upper_half<Where::kChannels, Where::kLanes>(shared, phase - 1, thread);
    } else if (phase == kTree + 1) {
      const double mean = shared[thread % Where::kChannels].first / static_cast<double>(table.total);
      double deviations = 0;
      for (int64_t number = where.lane; is_there && number < table.chunks; number += Where::kLanes) {
        const Chunk chunk(table, number);
        const float* from = v.partial + 2 * (number * table.channels + c);
        const double away = from[0] - mean;
        deviations += from[1] + static_cast<double>(chunk.end - chunk.begin) * away * away;
      }
      shared[kThreads + thread] = {deviations, mean};
    } else if (phase < kPhases - 1) {
      const int half = Where::kLanes >> (phase - kTree - 1);
      if (where.lane < half)
        shared[kThreads + thread].first += shared[kThreads + thread + half * Where::kChannels].first;
    } else if (where.lane == 0 && is_there) {
      finish(table, v, c, shared[kThreads + thread]);
    }
  }

 private:
  static ICCONV_MM_BOTH_INLINE void finish(const Table& table, const Vectors& v, int64_t c, const Pair& found) {
    const double count = static_cast<double>(table.total), var = found.first / count, mean = found.second;
    const double inverse = 1 / std::sqrt(var + v.eps), scale = v.weight ? v.weight[c] * inverse : inverse;
    v.mean[c] = static_cast<float>(mean);
    v.inverse[c] = static_cast<float>(inverse);
    v.scale[c] = static_cast<float>(scale);
    v.shift[c] = static_cast<float>((v.bias ? v.bias[c] : 0.0) - mean * scale);
    if (v.running_mean) v.running_mean[c] += static_cast<float>(v.momentum * (mean - v.running_mean[c]));
    if (v.running_var)
      v.running_var[c] += static_cast<float>(v.momentum * (var * count / (count - 1) - v.running_var[c]));
    if (v.batches && c == 0) ++*v.batches;
  }
};

// Blocks (channel block, chunk): y = scale x + shift, and ReLU.
template <typename T, bool kChannelsLast, bool kRelu>
struct Apply {
  using Where = Place<kChannelsLast>;
  static constexpr int kPhases = 1;

  static ICCONV_MM_BOTH_INLINE void run(int, const Table& table, const Vectors& v, int64_t block, int64_t number,
                                        int thread, Pair*) {
    const Where where(block, thread);
    if (where.channel >= table.channels) return;
    const Chunk chunk(table, number);
    const T* x = static_cast<const T*>(chunk.level->x);
    T* out = static_cast<T*>(chunk.level->out);
    // not scale x + shift at once: where the mean is large, both are, and their sum is not
    const float mean = v.mean[where.channel], scale = v.scale[where.channel];
    const float bias = v.bias ? v.bias[where.channel] : 0.0f;
    Walk<Where::kLanes> walk = chunk.walk(where);
    for (int64_t p = chunk.begin + where.lane; p < chunk.end; p += Where::kLanes, walk.step()) {
      const int64_t at = walk.at();
      const float y = scale * (static_cast<float>(x[at]) - mean) + bias;
      out[at] = static_cast<T>(kRelu && !(y > 0) && y == y ? 0.0f : y);
    }
  }
};

// The gradient of the normalised value: that of the result, where ReLU let it pass.
template <bool kRelu>
ICCONV_MM_BOTH_INLINE float passed(float grad, float centred, float scale, float bias) {
  return kRelu && scale * centred + bias <= 0 ? 0.0f : grad;
}

// Blocks (channel block, chunk): sums of g and of g (x - mean) / deviation.
template <typename T, bool kChannelsLast, bool kRelu>
struct Sums {
  using Where = Place<kChannelsLast>;
  static constexpr int kPhases = 2 + tree_phases(Where::kLanes);

  static ICCONV_MM_BOTH_INLINE void run(int phase, const Table& table, const Vectors& v, int64_t block, int64_t number,
                                        int thread, Pair* shared) {
    const Where where(block, thread);
    const bool is_there = where.channel < table.channels;
    if (phase == 0) {
      float plain = 0, weighted = 0;
      if (is_there) {
        const Chunk chunk(table, number);
        const T *x = static_cast<const T*>(chunk.level->x), *grad = static_cast<const T*>(chunk.level->grad);
        const float mean = v.mean[where.channel], inverse = v.inverse[where.channel];
        const float scale = (v.weight ? v.weight[where.channel] : 1.0f) * inverse;
        const float bias = v.bias ? v.bias[where.channel] : 0.0f;
        Walk<Where::kLanes> walk = chunk.walk(where);
        for (int64_t p = chunk.begin + where.lane; p < chunk.end; p += Where::kLanes, walk.step()) {
          const int64_t at = walk.at();
          const float centred = static_cast<float>(x[at]) - mean;
          const float g = passed<kRelu>(static_cast<float>(grad[at]), centred, scale, bias);
          plain += g;
          weighted += g * centred;
        }
        weighted *= inverse;
      }
      shared[thread] = {plain, weighted};
    } else if (phase < kPhases - 1) {
      add_upper_half<Where::kChannels, Where::kLanes>(shared, phase - 1, thread);
    } else if (where.lane == 0 && is_there) {
      float* to = v.partial + 2 * (number * table.channels + where.channel);
      to[0] = static_cast<float>(shared[thread].first);
      to[1] = static_cast<float>(shared[thread].second);
    }
  }
};

// Blocks of 32 channels: the gradients of weight and bias, and the numbers of the last launch.
struct CombineSums {
  using Where = Place<true>;
  static constexpr int kPhases = 2 + tree_phases(Where::kLanes);

  static ICCONV_MM_BOTH_INLINE void run(int phase, const Table& table, const Vectors& v, int64_t block, int64_t,
                                        int thread, Pair* shared) {
    const Where where(block, thread);
    const bool is_there = where.channel < table.channels;
    const int64_t c = where.channel;
    if (phase == 0) {
      Pair sum{0, 0};
      for (int64_t number = where.lane; is_there && number < table.chunks; number += Where::kLanes) {
        sum.first += v.partial[2 * (number * table.channels + c)];
        sum.second += v.partial[2 * (number * table.channels + c) + 1];
      }
      shared[thread] = sum;
    } else if (phase < kPhases - 1) {
      add_upper_half<Where::kChannels, Where::kLanes>(shared, phase - 1, thread);
    } else if (where.lane == 0 && is_there) {
      const Pair sum = shared[thread];
      const double inverse = v.inverse[c], scale = (v.weight ? v.weight[c] : 1.0f) * inverse;
      v.grad_bias[c] = static_cast<float>(sum.first);
      v.grad_weight[c] = static_cast<float>(sum.second);
      v.scale[c] = static_cast<float>(scale);
      v.shift[c] = static_cast<float>(-scale * sum.first / static_cast<double>(table.total));
      v.slope[c] = static_cast<float>(-scale * inverse * sum.second / static_cast<double>(table.total));
    }
  }
};

// Blocks (channel block, chunk): the gradient of x.
template <typename T, bool kChannelsLast, bool kRelu>
struct ApplyGradient {
  using Where = Place<kChannelsLast>;
  static constexpr int kPhases = 1;

  static ICCONV_MM_BOTH_INLINE void run(int, const Table& table, const Vectors& v, int64_t block, int64_t number,
                                        int thread, Pair*) {
    const Where where(block, thread);
    if (where.channel >= table.channels) return;
    const Chunk chunk(table, number);
    const T *x = static_cast<const T*>(chunk.level->x), *grad = static_cast<const T*>(chunk.level->grad);
    T* out = static_cast<T*>(chunk.level->out);
    const int64_t c = where.channel;
    const float mean = v.mean[c], scale = v.scale[c], slope = v.slope[c], shift = v.shift[c];
    const float bias = v.bias ? v.bias[c] : 0.0f;
    Walk<Where::kLanes> walk = chunk.walk(where);
    for (int64_t p = chunk.begin + where.lane; p < chunk.end; p += Where::kLanes, walk.step()) {
      const int64_t at = walk.at();
      const float centred = static_cast<float>(x[at]) - mean;
      const float g = passed<kRelu>(static_cast<float>(grad[at]), centred, scale, bias);
      out[at] = static_cast<T>(scale * g + (slope * centred + shift));
    }
  }
};

}  // namespace icconv_mm::integrated_norm
