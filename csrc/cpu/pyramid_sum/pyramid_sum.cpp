// The sum of a level of a pyramid and of the next coarser one upsampled, row by row.
#include "../../common/tensors.h"
#include "../operators.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <vector>

namespace icconv_mm::cpu {
namespace {

using at::Tensor;

constexpr int64_t kGrain = 1 << 14;  // elements of a task at least

// Where a coordinate lies between two of the coarser level: (1 - share) first + share second. Corners are aligned.
template <typename A>
struct Place {
  int64_t first, second;
  A share;
  Place(int64_t at, int64_t size, int64_t coarser) {
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
inline A between(A first, A second, A share) {
  return first + share * (second - first);
}

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

template <typename T, bool kChannelsLast>
void sum_rows(const Arguments<T>& args) {
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

void check(const Tensor& own, const Tensor& coarser, const Optional<Tensor>& finer) {
  TORCH_CHECK(own.dim() == 4 && coarser.dim() == 4 && own.size(0) == coarser.size(0) &&
                  own.size(1) == coarser.size(1) && coarser.numel() > 0,
              "pyramid_sum: expected two levels [N, C, H, W] that are not empty, with N and C alike, got ", own.sizes(),
              " and ", coarser.sizes());
  TORCH_CHECK(own.scalar_type() == coarser.scalar_type() && own.device() == coarser.device(),
              "pyramid_sum: expected levels of one dtype and device, got ", own.scalar_type(), " on ", own.device(),
              " and ", coarser.scalar_type(), " on ", coarser.device());
  TORCH_CHECK(!finer || (finer->sizes() == own.sizes() && finer->scalar_type() == own.scalar_type() &&
                         finer->device() == own.device()),
              "pyramid_sum: expected a third map like ", own.scalar_type(), own.sizes(), ", got ", finer->scalar_type(),
              finer->sizes());
}

}  // namespace

Tensor pyramid_sum(const Tensor& own, const Tensor& coarser, const Optional<Tensor>& finer) {
  check(own, coarser, finer);
  const auto format = own.suggest_memory_format();
  const Tensor a = own.contiguous(format), b = coarser.contiguous(format);
  const Tensor c = finer ? finer->contiguous(format) : Tensor();
  const Tensor out = icconv_mm::empty_like(a);
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, own.scalar_type(), "pyramid_sum", [&] {
    const Arguments<scalar_t> args{a.const_data_ptr<scalar_t>(),
                                   c.defined() ? c.const_data_ptr<scalar_t>() : nullptr,
                                   b.const_data_ptr<scalar_t>(),
                                   out.mutable_data_ptr<scalar_t>(),
                                   a.size(0),
                                   a.size(1),
                                   a.size(2),
                                   a.size(3),
                                   b.size(2),
                                   b.size(3)};
    if (format == at::MemoryFormat::ChannelsLast)
      sum_rows<scalar_t, true>(args);
    else
      sum_rows<scalar_t, false>(args);
  });
  return out;
}

}  // namespace icconv_mm::cpu
