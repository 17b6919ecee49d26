// What kn2row does beside its matrix products, one functor per pass. A functor computes the items that belong to one
// index and knows nothing of threads: CUDA gives each index a thread, the CPU runs them in a loop, so that the tests of
// the CPU drive the code of the GPU.
#pragma once

#include "../../common/common.h"
#include "../../common/host_device.h"

#include <cstdint>

namespace icconv_mm::inception_conv::kn2row {

constexpr int kVector = 8;     // channels or columns of an item
constexpr int kPixels = 4;     // pixels of an item, next to each other in a row
constexpr int kInner = 8;      // vectors that follow each other before the next pixels do
constexpr int kMaxPlanes = 4;  // pixels of one parity of row and column each: one at stride 1, four at stride 2
constexpr int kNumberOfTaps = 9;

template <typename T>
struct alignas(16) Vector {
  T values[kVector];
};

template <typename T>
struct Accumulator {
  using Type = float;
};
template <>
struct Accumulator<double> {
  using Type = double;
};

// Where the product of a channel and a tap lies: the plane (-1: nowhere), its column there, and how far the pixel that
// it belongs to is from the output's, in pixels of the plane.
struct alignas(16) Source {
  int plane, column, dy, dx;
};

// The same by columns of a plane; channel -1: zeros that only fill a vector.
struct alignas(16) Column {
  int channel, tap, dy, dx;
};

// How indices are cut into items: vectors innermost, in groups of kInner, then pixels, rows, images.
struct Walk {
  uint32_t vectors, inner, steps, rows, images;

  static Walk of(int64_t items, int64_t width, int64_t rows, int64_t images) {
    const uint32_t vectors = static_cast<uint32_t>((items + kVector - 1) / kVector);
    return {vectors, vectors < kInner ? vectors : kInner, static_cast<uint32_t>((width + kPixels - 1) / kPixels),
            static_cast<uint32_t>(rows), static_cast<uint32_t>(images)};
  }
  int64_t count() const { return int64_t((vectors + inner - 1) / inner) * inner * steps * rows * images; }

  struct Place {
    int first, image, row, x;  // first: channel or column of the vector
    bool inside;
  };
  ICCONV_MM_BOTH Place at(uint32_t index) const {
    const uint32_t within = index % inner, pixels = index / inner, lines = pixels / steps, maps = lines / rows;
    const uint32_t vector = maps / images * inner + within;
    return {static_cast<int>(vector * kVector), static_cast<int>(maps % images), static_cast<int>(lines % rows),
            static_cast<int>(pixels % steps * kPixels), vector < vectors};
  }
};

// Rows of a map that a buffer holds: [first, first + count) of all its images, channels innermost.
struct Rows {
  int first, count, width;
  int64_t pitch;  // elements of a pixel

  ICCONV_MM_BOTH int64_t offset(int image, int row, int x) const {
    return ((int64_t(image) * count + row - first) * width + x) * pitch;
  }
};

// Channels [first, first + kVector) of a pixel, as far as there are so many; zeros where `from` is null. `whole`: both
// pixels start at vectors if they are cut into vectors at all.
template <typename T>
ICCONV_MM_BOTH inline void copy_channels(const T* from, int64_t from_stride, T* to, int64_t to_stride, int first,
                                         int channels, bool whole) {
  if (whole && from_stride == 1 && to_stride == 1 && channels % kVector == 0) {
    Vector<T> vector = {};
    if (from) vector = *reinterpret_cast<const Vector<T>*>(from + first);
    *reinterpret_cast<Vector<T>*>(to + first) = vector;
    return;
  }
  for (int e = first; e < first + kVector && e < channels; ++e) to[e * to_stride] = from ? from[e * from_stride] : T(0);
}

// out = bias + the nine taps of each channel out of their planes, or what is ready already; then a ReLU if wanted.
template <typename T, typename Out>
struct Add {
  using Sum = typename Accumulator<Out>::Type;
  Walk walk;
  const T* planes[kMaxPlanes];
  Rows rows[kMaxPlanes];  // of equal heights and widths
  int height, width;      // of the output, and of every plane as a whole
  const Source* sources;  // [tap][channel]
  const int* alike;       // [channel / kVector]: the channels of a vector lie side by side, with the same shifts
  const Out* bias;
  const Out* ready;  // channels [ready_begin, ready_end) of the output, whole images of its rows, or null
  Rows ready_rows;
  int ready_begin, ready_end;
  Out* out;  // of the first image
  Strides strides;
  int channels, first_row;
  bool relu;

  ICCONV_MM_BOTH void add_vector(const Source& s, int image, int y, int x, Sum (&sums)[kPixels][kVector]) const {
    if (s.plane < 0 || y + s.dy < 0 || y + s.dy >= height) return;
    const Rows& held = rows[s.plane];
    const T* line = planes[s.plane] + held.offset(image, y + s.dy, 0) + s.column;
    ICCONV_MM_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      const int column = x + p + s.dx;
      if (column < 0 || column >= width) continue;
      const Vector<T> vector = *reinterpret_cast<const Vector<T>*>(line + column * held.pitch);
      ICCONV_MM_UNROLL
      for (int e = 0; e < kVector; ++e) sums[p][e] += static_cast<Sum>(vector.values[e]);
    }
  }

  ICCONV_MM_BOTH void add_scalars(int tap, int first, int image, int y, int x, Sum (&sums)[kPixels][kVector]) const {
    ICCONV_MM_UNROLL
    for (int e = 0; e < kVector; ++e) {
      if (first + e >= channels) continue;
      const Source s = sources[tap * channels + first + e];
      if (s.plane < 0 || y + s.dy < 0 || y + s.dy >= height) continue;
      const Rows& held = rows[s.plane];
      const T* line = planes[s.plane] + held.offset(image, y + s.dy, 0) + s.column;
      ICCONV_MM_UNROLL
      for (int p = 0; p < kPixels; ++p) {
        const int column = x + p + s.dx;
        if (column >= 0 && column < width) sums[p][e] += static_cast<Sum>(line[column * held.pitch]);
      }
    }
  }

  ICCONV_MM_BOTH void add_ready(int first, int image, int y, int x, Sum (&sums)[kPixels][kVector]) const {
    if (!ready || first < ready_begin || first >= ready_end) return;
    ICCONV_MM_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      if (x + p >= width) continue;
      const Out* from = ready + ready_rows.offset(image, y, x + p) + first - ready_begin;
      const Vector<Out> vector = *reinterpret_cast<const Vector<Out>*>(from);
      ICCONV_MM_UNROLL
      for (int e = 0; e < kVector; ++e) sums[p][e] += static_cast<Sum>(vector.values[e]);
    }
  }

  ICCONV_MM_BOTH void store(int first, int image, int y, int x, const Sum (&sums)[kPixels][kVector]) const {
    ICCONV_MM_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      if (x + p >= width) continue;
      Vector<Out> vector;
      ICCONV_MM_UNROLL
      for (int e = 0; e < kVector; ++e) {
        Sum value = sums[p][e];
        if (bias && first + e < channels) value += static_cast<Sum>(bias[first + e]);
        vector.values[e] = static_cast<Out>(relu && value < 0 ? Sum(0) : value);  // NaN stays
      }
      Out* to = out + image * strides.image + y * strides.row + (x + p) * strides.column + first * strides.channel;
      if (strides.channel == 1 && channels % kVector == 0) {
        *reinterpret_cast<Vector<Out>*>(to) = vector;
      } else {
        ICCONV_MM_UNROLL
        for (int e = 0; e < kVector; ++e)
          if (first + e < channels) to[e * strides.channel] = vector.values[e];
      }
    }
  }

  ICCONV_MM_BOTH void operator()(uint32_t index) const {
    const Walk::Place place = walk.at(index);
    if (!place.inside) return;
    const int y = first_row + place.row;
    Sum sums[kPixels][kVector] = {};
    add_ready(place.first, place.image, y, place.x, sums);
    const bool together = alike[place.first / kVector] != 0;
    for (int tap = 0; tap < kNumberOfTaps; ++tap) {
      if (together)
        add_vector(sources[tap * channels + place.first], place.image, y, place.x, sums);
      else
        add_scalars(tap, place.first, place.image, y, place.x, sums);
    }
    store(place.first, place.image, y, place.x, sums);
  }
};

// The other way round: out[pixel][column] = grad of the column's channel at the output pixel that reads this one.
template <typename T>
struct Spread {
  Walk walk;
  const T* grad;  // of the first image
  Strides strides;
  int height, width;      // of the gradient, and of every plane as a whole
  const Column* columns;  // of the plane
  const int* alike;       // [column / kVector]: channels of a vector lie side by side, with the same shifts
  bool whole;             // the gradient's channels are innermost and its pixels start at vectors
  T* out;
  Rows rows;

  ICCONV_MM_BOTH bool find(const Column& c, int y, int x, int64_t& offset) const {
    const int row = y - c.dy, column = x - c.dx;
    offset = row * strides.row + column * strides.column + c.channel * strides.channel;
    return c.channel >= 0 && row >= 0 && row < height && column >= 0 && column < width;
  }

  ICCONV_MM_BOTH void operator()(uint32_t index) const {
    const Walk::Place place = walk.at(index);
    if (!place.inside) return;
    const T* image = grad + place.image * strides.image;
    const int y = rows.first + place.row;
    const bool together = whole && alike[place.first / kVector] != 0;
    ICCONV_MM_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      if (place.x + p >= width) continue;
      Vector<T> vector = {};
      int64_t offset;
      if (together) {
        if (find(columns[place.first], y, place.x + p, offset))
          vector = *reinterpret_cast<const Vector<T>*>(image + offset);
      } else {
        ICCONV_MM_UNROLL
        for (int e = 0; e < kVector; ++e)
          if (find(columns[place.first + e], y, place.x + p, offset)) vector.values[e] = image[offset];
      }
      *reinterpret_cast<Vector<T>*>(out + rows.offset(place.image, y, place.x + p) + place.first) = vector;
    }
  }
};

// Every second pixel of an input, from (row, column) on, with zeros where a plane is larger than what there is.
template <typename T>
struct Thin {
  Walk walk;
  const T* x;  // of the first image
  Strides strides;
  int height, width, channels, stride, row, column;
  bool whole;  // pixels of the input start at vectors
  T* out;
  Rows rows;

  ICCONV_MM_BOTH void operator()(uint32_t index) const {
    const Walk::Place place = walk.at(index);
    if (!place.inside) return;
    const int y = (rows.first + place.row) * stride + row;
    ICCONV_MM_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      if (place.x + p >= rows.width) continue;
      const int from = (place.x + p) * stride + column;
      const bool inside = y < height && from < width;
      const T* source = x + place.image * strides.image + y * strides.row + from * strides.column;
      T* to = out + rows.offset(place.image, rows.first + place.row, place.x + p);
      copy_channels(inside ? source : nullptr, strides.channel, to, 1, place.first, channels, whole);
    }
  }
};

// Back: an input's gradient out of those of its planes; zeros where no channel reads a parity.
template <typename T>
struct Interleave {
  Walk walk;  // over rows and columns of the output
  const T* planes[kMaxPlanes];
  int plane_of[4];  // by 2 * (row % 2) + column % 2; -1: none
  Rows rows;
  T* out;
  Strides strides;
  int width, channels, first_row;

  ICCONV_MM_BOTH void operator()(uint32_t index) const {
    const Walk::Place place = walk.at(index);
    if (!place.inside) return;
    const int y = first_row + place.row;
    ICCONV_MM_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      if (place.x + p >= width) continue;
      const int x = place.x + p, plane = plane_of[2 * (y % 2) + x % 2];
      T* to = out + place.image * strides.image + y * strides.row + x * strides.column;
      const T* from = plane < 0 ? nullptr : planes[plane] + rows.offset(place.image, y / 2, x / 2);
      copy_channels(from, 1, to, strides.channel, place.first, channels, true);
    }
  }
};

// Filters [C_out, C_in / groups, 3, 3] as rows of a plane's product: [column][channel of the group].
template <typename T>
struct PackFilters {
  const T* weight;
  Strides strides;  // image: of a filter
  const Column* columns;
  uint32_t channels;
  T* out;

  ICCONV_MM_BOTH void operator()(uint32_t index) const {
    const Column c = columns[index / channels];
    const int64_t offset = c.channel * strides.image + index % channels * strides.channel + c.tap / 3 * strides.row +
                           c.tap % 3 * strides.column;
    out[index] = c.channel < 0 ? T(0) : weight[offset];
  }
};

// Back: sums [column][channel of the group] of each plane as filters, contiguous; zeros for what is in no plane.
template <typename Sum, typename T>
struct UnpackFilters {
  const Sum* planes[kMaxPlanes];
  const Source* sources;  // [tap][filter]
  uint32_t channels, filters;
  T* out;

  ICCONV_MM_BOTH void operator()(uint32_t index) const {
    const uint32_t tap = index % kNumberOfTaps, rest = index / kNumberOfTaps;
    const Source s = sources[tap * filters + rest / channels];
    out[index] = s.plane < 0 ? T(0) : static_cast<T>(planes[s.plane][int64_t(s.column) * channels + rest % channels]);
  }
};

}  // namespace icconv_mm::inception_conv::kn2row
