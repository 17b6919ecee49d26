// The sum of a level of a pyramid and of the next coarser one upsampled, row by row.
#include "../../pyramid_sum/call.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <vector>

namespace icconv_mm::cpu {
namespace {

using namespace pyramid_sum;

constexpr int64_t kGrain = 1 << 14;  // elements of a task at least

// A row of the output.
template <typename T>
struct Row {
  const T *own, *finer, *above, *below;  // above, below: of the coarser level
  T* out;
  at::opmath_type<T> share;  // of the one below
};

template <typename T>
Row<T> find_row(const Arguments<T>& args, int64_t number, int64_t skip) {
  const int64_t plane = number / args.height, at = number * args.width * skip;
  const Place<at::opmath_type<T>> place(number % args.height, args.height, args.coarser_height);
  const T* from = args.coarser + plane * args.coarser_height * args.coarser_width * skip;
  return {args.own + at,
          args.finer ? args.finer + at : nullptr,
          from + place.first * args.coarser_width * skip,
          from + place.second * args.coarser_width * skip,
          args.out + at,
          place.share};
}

// `count` values of a pixel, or one of a plane.
template <bool kFiner, typename T, typename A>
inline void sum_pixel(const Row<T>& row, const A* first, const A* second, A share, int64_t at, int64_t count) {
  for (int64_t c = 0; c < count; ++c) {
    A sum = static_cast<A>(row.own[at + c]);
    if constexpr (kFiner) sum += static_cast<A>(row.finer[at + c]);
    row.out[at + c] = static_cast<T>(sum + between(first[c], second[c], share));
  }
}

// mixed: memory for the row of the coarser level that is between two
template <bool kChannelsLast, bool kFiner, typename T, typename A>
void sum_row(const Row<T>& row, const std::vector<Place<A>>& places, int64_t coarser, int64_t channels, A* mixed) {
  const int64_t skip = kChannelsLast ? channels : 1;
  for (int64_t i = 0; i < coarser * skip; ++i)
    mixed[i] = between(static_cast<A>(row.above[i]), static_cast<A>(row.below[i]), row.share);
  for (size_t x = 0; x < places.size(); ++x) {
    const Place<A>& place = places[x];
    sum_pixel<kFiner>(row, mixed + place.first * skip, mixed + place.second * skip, place.share, x * skip, skip);
  }
}

struct OnProcessor {
  explicit OnProcessor(const Tensor&) {}

  template <typename T, bool kChannelsLast>
  void run(const Arguments<T>& args) const {
    using A = at::opmath_type<T>;
    const int64_t skip = kChannelsLast ? args.channels : 1, rows = args.images * args.height * args.channels / skip;
    std::vector<Place<A>> places;
    for (int64_t x = 0; x < args.width; ++x) places.emplace_back(x, args.width, args.coarser_width);
    at::parallel_for(0, rows, kGrain / (args.width * skip) + 1, [&](int64_t begin, int64_t end) {
      std::vector<A> mixed(args.coarser_width * skip);
      for (int64_t number = begin; number < end; ++number) {
        const Row<T> row = find_row(args, number, skip);
        if (row.finer)
          sum_row<kChannelsLast, true>(row, places, args.coarser_width, skip, mixed.data());
        else
          sum_row<kChannelsLast, false>(row, places, args.coarser_width, skip, mixed.data());
      }
    });
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) { m.impl("pyramid_sum_compiled", TORCH_FN(run<OnProcessor>)); }

}  // namespace icconv_mm::cpu
