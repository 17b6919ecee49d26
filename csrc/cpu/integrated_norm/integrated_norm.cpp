// Integrated batch norm over the levels of a pyramid: two passes over memory forward and two backward, ReLU included.
//
// The first pass takes sums of pieces, of deviations from a value of the piece (forward) or from the mean (backward),
// so that no digits are lost; they are combined in double precision. Pieces do not depend on the number of threads, and
// neither does the result.
#include "../../common/tensors.h"
#include "../operators.h"
#include "../simd/kernels.h"
#include "../simd/norm.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <vector>

namespace icconv_mm::cpu {
namespace {

using at::Tensor;

constexpr int64_t kPieceElements = 1 << 16;
constexpr int64_t kPiecePixels = 1024;       // at most, of channels_last: they are added up in single precision
constexpr int64_t kSegmentPixels = 1 << 14;  // the same of a plane, in 16 sums or more

bool has_stride(const Tensor& x, int64_t axis, int64_t stride) { return x.size(axis) == 1 || x.stride(axis) == stride; }

// From a pixel to the next, where all pixels have one distance and the channels of one lie side by side; else 0.
int64_t pixel_stride(const Tensor& x) {
  int64_t stride = x.size(1);
  for (int64_t axis : {0, 2, 3})
    if (x.size(axis) > 1) stride = x.stride(axis);
  const bool even =
      has_stride(x, 1, 1) && has_stride(x, 2, x.size(3) * stride) && has_stride(x, 0, x.size(2) * x.size(3) * stride);
  return even ? stride : 0;
}

bool has_planes(const Tensor& x) {
  return has_stride(x, 3, 1) && has_stride(x, 2, x.size(3)) && has_stride(x, 1, x.size(2) * x.size(3));
}

// A level; x may be channels of a larger map, grad and out are dense.
struct Level {
  Tensor x, grad, out;
  int64_t channels, area;
  bool channels_last;
  int64_t x_row;  // channels_last: from a pixel to the next; else from an image to the next

  Level(const Tensor& given, const Tensor* towards) : x(given), channels(x.size(1)), area(x.size(2) * x.size(3)) {
    if (!has_planes(x) && !pixel_stride(x)) x = x.contiguous(x.suggest_memory_format());
    channels_last = pixel_stride(x) && (area == 1 || !has_planes(x));
    x_row = channels_last ? pixel_stride(x) : x.stride(0);
    out = icconv_mm::empty_like(x);
    if (!towards) return;
    TORCH_CHECK(towards->sizes() == x.sizes() && towards->scalar_type() == x.scalar_type(),
                "integrated_norm: expected a gradient like ", x.scalar_type(), x.sizes(), ", got ",
                towards->scalar_type(), towards->sizes());
    grad = towards->contiguous(channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  }
  int64_t pixels() const { return x.size(0) * area; }
};

// Planes, or pixels, of a level. Sums of pixels are row `row` of all sums; a plane adds to that of its image.
struct Piece {
  const Level* level;
  int64_t begin, end, row;
};

// Two sums, or mean and squared deviations, of every row and channel.
struct Sums {
  double first, second;
};

struct Work {
  std::vector<Level> levels;
  std::vector<Piece> pieces;
  std::vector<int64_t> row_pixels;
  int64_t channels, total = 0;

  Work(at::TensorList given, at::TensorList grads) : channels(0) {
    TORCH_CHECK(!given.empty(), "integrated_norm takes at least one level");
    TORCH_CHECK(grads.empty() || grads.size() == given.size(), "integrated_norm: expected ", given.size(),
                " gradients, got ", grads.size());
    levels.reserve(given.size());
    for (size_t l = 0; l < given.size(); ++l) {
      const Tensor& x = given[l];
      TORCH_CHECK(
          x.dim() == 4 && x.size(1) == given[0].size(1) && x.scalar_type() == given[0].scalar_type() && x.numel() > 0,
          "integrated_norm takes levels [N, C, H, W] alike that are not empty, got ", x.scalar_type(), x.sizes(),
          " beside ", given[0].scalar_type(), given[0].sizes());
      levels.emplace_back(x, grads.empty() ? nullptr : &grads[l]);
      add_pieces(levels.back());
      total += levels.back().pixels();
    }
    channels = given[0].size(1);
  }

  // Calls body(piece) for all of them.
  template <typename Body>
  void each(const Body& body) const {
    const int64_t count = static_cast<int64_t>(pieces.size());
    const int64_t grain = total * channels < kPieceElements ? count : 1;
    at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(pieces[i]);
    });
  }

 private:
  void add_pieces(const Level& level) {
    const int64_t each =
        level.channels_last ? std::min(kPieceElements / level.channels, kPiecePixels) : kPieceElements / level.area;
    const int64_t step = std::max<int64_t>(each, 1);
    const int64_t end = level.channels_last ? level.pixels() : level.x.size(0) * level.channels;
    int64_t row = static_cast<int64_t>(row_pixels.size());
    for (int64_t begin = 0; begin < end; begin += step) {
      pieces.push_back({&level, begin, std::min(begin + step, end), row});
      if (level.channels_last) row_pixels.push_back(pieces.back().end - begin), ++row;
    }
    if (!level.channels_last) row_pixels.insert(row_pixels.end(), level.x.size(0), level.area);
  }
};

// The pixels of a piece, with all that a call shares.
template <typename T>
NormArguments<T> of_pixels(const NormArguments<T>& shared, const Piece& piece) {
  const Level& level = *piece.level;
  NormArguments<T> args = shared;
  args.rows = piece.end - piece.begin, args.columns = level.channels;
  args.x_row = level.x_row, args.row = level.channels;
  args.x = level.x.const_data_ptr<T>() + piece.begin * args.x_row;
  args.grad = level.grad.defined() ? level.grad.const_data_ptr<T>() + piece.begin * args.row : nullptr;
  args.out = level.out.mutable_data_ptr<T>() + piece.begin * args.row;
  return args;
}

// `count` pixels of a plane, from `first` on.
template <typename T>
NormArguments<T> of_plane(const NormArguments<T>& shared, const Level& level, int64_t plane, int64_t first,
                          int64_t count) {
  const int64_t c = plane % level.channels, at = plane * level.area + first;
  NormArguments<T> args = shared;
  args.rows = 1, args.columns = count;
  args.x = level.x.const_data_ptr<T>() + plane / level.channels * level.x_row + c * level.area + first;
  args.grad = level.grad.defined() ? level.grad.const_data_ptr<T>() + at : nullptr;
  args.out = level.out.mutable_data_ptr<T>() + at;
  for (auto member : {&NormArguments<T>::mean, &NormArguments<T>::scale, &NormArguments<T>::bias,
                      &NormArguments<T>::grad_scale, &NormArguments<T>::slope, &NormArguments<T>::rest})
    if (args.*member) args.*member += c;
  return args;
}

// The second pass: a loop over everything.
template <typename T>
void map(const Work& work, const NormArguments<T>& shared, const typename NormLoops<T>::Loop (&loop)[2]) {
  work.each([&](const Piece& piece) {
    if (piece.level->channels_last) return loop[1](of_pixels(shared, piece));
    for (int64_t plane = piece.begin; plane < piece.end; ++plane)
      loop[0](of_plane(shared, *piece.level, plane, 0, piece.level->area));
  });
}

// Joins sums of `more` pixels of one channel to those of `pixels`.
struct JoinSums {
  JoinSums(double, double) {}

  void operator()(Sums& so_far, double first, double second, double) const {
    so_far.first += first, so_far.second += second;
  }
};

// The same of moments: sums of d = x - shift and of d^2 to mean and squared deviations.
struct JoinMoments {
  double inverse, share, weight;

  JoinMoments(double pixels, double more) : inverse(1 / more), share(more / (pixels + more)), weight(pixels * share) {}

  void operator()(Sums& so_far, double first, double second, double shift) const {
    const double mean = first * inverse;
    unite(so_far, {shift + mean, second - mean * first});
  }
  void unite(Sums& so_far, const Sums& more) const {
    const double away = more.first - so_far.first;
    so_far.first += away * share;
    so_far.second += more.second + away * away * weight;
  }
};

// The first pass: for each row of sums and channel what Join makes of the sums of a loop.
template <typename T, typename Join>
std::vector<Sums> reduce(const Work& work, const NormArguments<T>& shared,
                         const typename NormLoops<T>::Loop (&loop)[2]) {
  using A = typename NormArguments<T>::A;
  std::vector<Sums> sums(work.row_pixels.size() * work.channels, Sums{0, 0});
  work.each([&](const Piece& piece) {
    const Level& level = *piece.level;
    if (level.channels_last) {
      std::vector<A> found(2 * level.channels);
      NormArguments<T> args = of_pixels(shared, piece);
      args.sums = found.data();
      loop[1](args);
      const Join join(0, args.rows);
      const A* others = found.data() + level.channels;
      for (int64_t c = 0; c < level.channels; ++c)
        join(sums[piece.row * level.channels + c], found[c], others[c], args.x[c]);
      return;
    }
    for (int64_t plane = piece.begin; plane < piece.end; ++plane)
      for (int64_t first = 0; first < level.area; first += kSegmentPixels) {
        A found[2];
        NormArguments<T> args = of_plane(shared, level, plane, first, std::min(kSegmentPixels, level.area - first));
        args.sums = found;
        loop[0](args);
        const Join join(first, args.columns);
        join(sums[piece.row * level.channels + plane], found[0], found[1], args.x[0]);
      }
  });
  return sums;
}

template <typename A>
const A* values(const Optional<Tensor>& tensor, int64_t channels) {
  if (!tensor) return nullptr;
  TORCH_CHECK(tensor->scalar_type() == c10::CppTypeToScalarType<A>::value && tensor->is_contiguous() &&
                  tensor->numel() == channels,
              "integrated_norm takes ", channels, " parameters and statistics of ", c10::CppTypeToScalarType<A>::value,
              ", got ", tensor->scalar_type(), tensor->sizes());
  return tensor->const_data_ptr<A>();
}

template <typename A>
A* changed(const Optional<Tensor>& tensor, int64_t channels) {
  return values<A>(tensor, channels) ? tensor->mutable_data_ptr<A>() : nullptr;
}

std::vector<Tensor> outputs(const Work& work) {
  std::vector<Tensor> out;
  for (const Level& level : work.levels) out.push_back(level.out);
  return out;
}

// (levels, mean, 1 / standard deviation); running statistics and the number of batches are updated in place.
template <typename T>
NormResults forward_of(const Work& work, const Optional<Tensor>& weight, const Optional<Tensor>& bias,
                       const Optional<Tensor>& running_mean, const Optional<Tensor>& running_var, double momentum,
                       double eps, bool relu) {
  using A = typename NormArguments<T>::A;
  const int64_t channels = work.channels;
  const A *weights = values<A>(weight, channels), *biases = values<A>(bias, channels);
  A *old_mean = changed<A>(running_mean, channels), *old_var = changed<A>(running_var, channels);
  const auto sums = reduce<T, JoinMoments>(work, {}, norm_loops<T>().moments);
  std::vector<Sums> all(channels, Sums{0, 0});
  double pixels = 0;
  for (size_t row = 0; row < work.row_pixels.size(); pixels += work.row_pixels[row++]) {
    const JoinMoments join(pixels, work.row_pixels[row]);
    for (int64_t c = 0; c < channels; ++c) join.unite(all[c], sums[row * channels + c]);
  }

  const auto options = work.levels[0].x.options().dtype(c10::CppTypeToScalarType<A>::value);
  const Tensor mean = empty({channels}, options), inverse = empty({channels}, options);
  A *means = mean.mutable_data_ptr<A>(), *inverses = inverse.mutable_data_ptr<A>();
  std::vector<A> scale(channels), shift(channels);
  for (int64_t c = 0; c < channels; ++c) {
    const double var = all[c].second / pixels;
    means[c] = all[c].first, inverses[c] = 1 / std::sqrt(var + eps);
    scale[c] = (weights ? weights[c] : A(1)) * inverses[c], shift[c] = biases ? biases[c] : A(0);
    if (old_mean) old_mean[c] += momentum * (all[c].first - old_mean[c]);
    if (old_var) old_var[c] += momentum * (all[c].second / (pixels - 1) - old_var[c]);
  }
  NormArguments<T> args{};
  args.mean = means, args.scale = scale.data(), args.bias = shift.data();
  const auto& apply = norm_loops<T>().apply;
  map<T>(work, args, {apply[0][relu], apply[1][relu]});
  return {outputs(work), mean, inverse};
}

// (gradients of the levels, of the weight, of the bias)
template <typename T>
NormResults backward_of(const Work& work, const Optional<Tensor>& weight, const Optional<Tensor>& bias,
                        const Tensor& mean, const Tensor& inverse, bool relu) {
  using A = typename NormArguments<T>::A;
  const int64_t channels = work.channels;
  const A *weights = values<A>(weight, channels), *biases = values<A>(bias, channels);
  const A *means = values<A>(mean, channels), *inverses = values<A>(inverse, channels);
  std::vector<A> scale(channels), shift(channels), slope(channels), rest(channels);
  for (int64_t c = 0; c < channels; ++c)
    scale[c] = (weights ? weights[c] : A(1)) * inverses[c], shift[c] = biases ? biases[c] : A(0);
  NormArguments<T> args{};
  args.mean = means, args.scale = scale.data(), args.bias = shift.data();
  const auto& loop = norm_loops<T>();
  const auto sums = reduce<T, JoinSums>(work, args, {loop.sums[0][relu], loop.sums[1][relu]});
  std::vector<Sums> all(channels, Sums{0, 0});
  for (size_t row = 0; row < work.row_pixels.size(); ++row)
    for (int64_t c = 0; c < channels; ++c)
      all[c].first += sums[row * channels + c].first, all[c].second += sums[row * channels + c].second;

  const Tensor to_weight = empty({channels}, mean.options()), to_bias = empty({channels}, mean.options());
  A *grad_weight = to_weight.mutable_data_ptr<A>(), *grad_bias = to_bias.mutable_data_ptr<A>();
  for (int64_t c = 0; c < channels; ++c) {
    const double weighted = all[c].second * inverses[c];
    grad_weight[c] = weighted, grad_bias[c] = all[c].first;
    slope[c] = -scale[c] * inverses[c] * weighted / work.total;
    rest[c] = -scale[c] * all[c].first / work.total;
  }
  args.grad_scale = scale.data(), args.slope = slope.data(), args.rest = rest.data();
  map<T>(work, args, {loop.gradient[0][relu], loop.gradient[1][relu]});
  return {outputs(work), to_weight, to_bias};
}

}  // namespace

NormResults integrated_norm(at::TensorList levels, const Optional<Tensor>& weight, const Optional<Tensor>& bias,
                            const Optional<Tensor>& running_mean, const Optional<Tensor>& running_var,
                            const Optional<Tensor>& batches, double momentum, double eps, bool relu) {
  const Work work(levels, {});
  NormResults results;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, levels[0].scalar_type(), "integrated_norm", [&] {
    results = forward_of<scalar_t>(work, weight, bias, running_mean, running_var, momentum, eps, relu);
  });
  if (batches) ++*batches->mutable_data_ptr<int64_t>();
  return results;
}

NormResults integrated_norm_grad(at::TensorList grads, at::TensorList levels, const Optional<Tensor>& weight,
                                 const Optional<Tensor>& bias, const Tensor& mean, const Tensor& inverse, bool relu) {
  const Work work(levels, grads);
  NormResults results;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, levels[0].scalar_type(), "integrated_norm",
                                  [&] { results = backward_of<scalar_t>(work, weight, bias, mean, inverse, relu); });
  return results;
}

}  // namespace icconv_mm::cpu
