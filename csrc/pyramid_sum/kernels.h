// The sum of a level of a pyramid and of the next coarser one upsampled: the work of one thread, the same on a GPU
// and, for tests, on the processor.
#pragma once

#include <ATen/OpMathType.h>

#include <cstdint>

#include "../common/host_device.h"

namespace icconv_mm::pyramid_sum {

// Where a coordinate lies between two of the coarser level: (1 - share) first + share second. Corners are aligned.
template <typename A>
struct Place {
  int64_t first, second;
  A share;
  ICCONV_MM_BOTH_INLINE Place(int64_t at, int64_t size, int64_t coarser) {
    const A from = size > 1 ? static_cast<A>(at) * (static_cast<A>(coarser - 1) / static_cast<A>(size - 1)) : A(0);
    first = static_cast<int64_t>(from) < coarser ? static_cast<int64_t>(from) : coarser - 1;
    second = first + 1 < coarser ? first + 1 : first;
    share = from - static_cast<A>(first);
  }
};

// out = own + finer + coarser upsampled: [N, C, H, W], the coarser [N, C, h, w], all dense and in one memory format.
template <typename T>
struct Arguments {
  const T *own, *finer, *coarser;  // finer: null where there is none
  T* out;
  int64_t images, channels, height, width, coarser_height, coarser_width;
};

template <typename A>
ICCONV_MM_BOTH_INLINE A between(A first, A second, A share) {
  return first + share * (second - first);
}

// N neighbouring elements from the N * i-th in memory on; N > 1 for channels_last, in whose channels it divides.
template <typename T, bool kChannelsLast, int N>
struct Elements {
  using A = at::opmath_type<T>;
  struct alignas(N * sizeof(T)) Vector {
    T values[N];
  };

  static ICCONV_MM_BOTH_INLINE void run(const Arguments<T>& args, int64_t i) {
    int64_t rest = i, c = 0, skip = 1;  // skip: elements from a pixel to the next
    if (kChannelsLast) c = rest % (args.channels / N) * N, rest /= args.channels / N, skip = args.channels;
    const int64_t x = rest % args.width, y = rest / args.width % args.height, plane = rest / args.width / args.height;
    const Place<A> row(y, args.height, args.coarser_height), column(x, args.width, args.coarser_width);
    const T* from = args.coarser + plane * args.coarser_height * args.coarser_width * skip + c;
    const auto load = [](const T* p, int64_t at) { return reinterpret_cast<const Vector*>(p)[at]; };
    const auto pixel = [&](int64_t h, int64_t w) { return load(from + (h * args.coarser_width + w) * skip, 0); };
    const Vector a = pixel(row.first, column.first), b = pixel(row.first, column.second);
    const Vector d = pixel(row.second, column.first), e = pixel(row.second, column.second);
    const Vector own = load(args.own, i), finer = args.finer ? load(args.finer, i) : Vector{};
    Vector out;
    ICCONV_MM_UNROLL
    for (int n = 0; n < N; ++n) {
      const A above = between(static_cast<A>(a.values[n]), static_cast<A>(b.values[n]), column.share);
      const A below = between(static_cast<A>(d.values[n]), static_cast<A>(e.values[n]), column.share);
      const A sum = static_cast<A>(own.values[n]) + static_cast<A>(finer.values[n]);
      out.values[n] = static_cast<T>(sum + between(above, below, row.share));
    }
    reinterpret_cast<Vector*>(args.out)[i] = out;
  }
};

}  // namespace icconv_mm::pyramid_sum
