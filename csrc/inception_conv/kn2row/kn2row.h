// The inception convolution and its gradients as matrix products (kn2row, Vasudevan et al., arXiv 1704.04428): the
// product of every pixel with every filter's nine taps first, then nine shifted additions. It costs the FLOPs of the
// dense convolution whatever the pattern, and memory for the products.
//
// `Device` says where the passes of kernels.h run and where the tables of a plan lie:
//   template <typename Pass> static void run(const Pass&, int64_t count);
//   static Tables tables(const Geometry&, Pattern, const Range& without);
//   static bool exact_float();   // whether fp32 must keep its digits, as torch's own convolutions are told to
#pragma once

#include "plan.h"

#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <optional>

namespace icconv_mm::inception_conv::kn2row {

struct Tables {
  const int* host;
  const int* device;
  const Plan& head() const { return *reinterpret_cast<const Plan*>(host); }
  const Source* sources() const { return reinterpret_cast<const Source*>(device + head().sources); }
  const Column* columns(int plane) const {
    return reinterpret_cast<const Column*>(device + head().columns) + head().plane[plane].first;
  }
  const int* alike_channels() const { return device + head().alike_channels; }
  const int* alike_columns(int plane) const {
    return device + head().alike_columns + head().plane[plane].first / kVector;
  }
};

// The type of the products before they are added: what fp16 cannot hold (above 65504) may well cancel.
template <typename T>
struct Partial {
  using Type = T;
};
template <>
struct Partial<at::Half> {
  using Type = float;
};

inline Strides strides_of(const at::Tensor& t) { return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)}; }

// a [G, P, K] . b [G, K, n] -> out [G, P, n]; any of them may be views with one stride of 1.
inline void multiply(at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 8
  const bool widens = a.is_cuda();  // products of two types are there for CUDA alone
#else
  const bool widens = false;
#endif
  const bool one = a.size(0) == 1;
  if (out.scalar_type() != a.scalar_type() && !widens) {
    const at::Tensor wide_a = a.to(out.scalar_type()), wide_b = b.to(out.scalar_type());
    at::bmm_out(out, wide_a, wide_b);
  } else if (out.scalar_type() != a.scalar_type()) {
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 8
    at::Tensor first = one ? out[0] : out;
    one ? at::mm_out(first, a[0], b[0], out.scalar_type()) : at::bmm_out(first, a, b, out.scalar_type());
#endif
  } else if (one) {
    at::Tensor first = out[0];
    at::mm_out(first, a[0], b[0]);
  } else {
    at::bmm_out(out, a, b);
  }
}

// A 1x1 convolution, for fp32: it obeys the same switch for TF32 as torch's other convolutions.
inline at::Tensor convolve_points(const at::Tensor& map, const at::Tensor& filters, int64_t groups) {
  const int64_t one[] = {1, 1}, none[] = {0, 0};
  return at::conv2d(map, filters, {}, one, c10::IntArrayRef(none), one, groups)
      .contiguous(at::MemoryFormat::ChannelsLast);
}

// The pixels of one chunk, channels innermost or (a single image) outermost.
struct Pixels {
  at::Tensor map;  // [n, C, rows, width]
  int64_t groups;

  bool last() const { return map.is_contiguous(at::MemoryFormat::ChannelsLast); }
  // [G, P, C / G]
  at::Tensor matrix() const {
    const int64_t channels = map.size(1) / groups;
    if (last()) return map.permute({0, 2, 3, 1}).view({-1, groups, channels}).permute({1, 0, 2});
    return map.flatten(0, 1).view({groups, channels, -1}).transpose(1, 2);
  }
};

template <typename Device>
class Call {
 public:
  Call(const Geometry& g, Pattern pattern, const Range& without)
      : g_(g), tables_(Device::tables(g, pattern, without)), plan_(tables_.head()) {}

  at::Tensor forward(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& ready,
                     const Range& range, bool relu) const {
    const at::Tensor x = arranged(input);
    at::Tensor out =
        at::empty({g_.batch, g_.out_channels, g_.out_height, g_.out_width}, x.options(), input.suggest_memory_format());
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "inception_conv2d", [&] {
      using T = scalar_t;
      using Product = typename Partial<T>::Type;
      const auto filters = pack<T>(weight);
      const bool one_image = !x.is_contiguous(at::MemoryFormat::ChannelsLast) && g_.stride == 1;
      for (const Chunk& chunk :
           cut(g_, plan_.total_columns * sizeof(Product), -plan_.least_dy, plan_.most_dy, one_image)) {
        Add<Product, T> add{};
        std::vector<at::Tensor> products;
        for (int q = 0; q < plan_.planes; ++q) {
          products.push_back(product<T>(pixels<T>(x, q, chunk), filters[q]));
          add.planes[q] = products.back().template const_data_ptr<Product>();
          add.rows[q] = rows_of(chunk.held, chunk.held_rows, products.back().size(1));
        }
        add.walk = Walk::of(g_.out_channels, g_.out_width, chunk.rows, chunk.images);
        add.height = static_cast<int>(g_.out_height), add.width = static_cast<int>(g_.out_width);
        add.sources = tables_.sources(), add.alike = tables_.alike_channels();
        add.bias = bias.defined() ? bias.const_data_ptr<T>() : nullptr;
        if (ready.defined()) {
          add.ready_rows = rows_of(0, g_.out_height, ready.size(1));
          add.ready = ready.const_data_ptr<T>() + chunk.image * g_.out_height * g_.out_width * ready.size(1);
        }
        add.ready_begin = static_cast<int>(range.begin), add.ready_end = static_cast<int>(range.end);
        add.strides = strides_of(out);
        add.out = out.mutable_data_ptr<T>() + chunk.image * out.stride(0);
        add.channels = static_cast<int>(g_.out_channels), add.first_row = static_cast<int>(chunk.row);
        add.relu = relu;
        Device::run(add, add.walk.count());
      }
    });
    return out;
  }

  at::Tensor grad_input(const at::Tensor& gradient, const at::Tensor& weight) const {
    const auto format = gradient.suggest_memory_format();
    const at::Tensor grad = gradient.contiguous(format);
    at::Tensor out = at::empty({g_.batch, g_.in_channels, g_.height, g_.width}, grad.options(), format);
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "inception_conv2d_grad_input", [&] {
      using T = scalar_t;
      const auto filters = pack<T>(weight);
      const bool one_image = format == at::MemoryFormat::Contiguous && g_.stride == 1;
      for (const Chunk& chunk : cut(g_, plan_.total_columns * sizeof(T), 0, 0, one_image)) {
        if (g_.stride == 1) {
          at::Tensor part = out.narrow(0, chunk.image, chunk.images).narrow(2, chunk.row, chunk.rows);
          multiply_back<T>(spread<T>(grad, 0, chunk), filters[0], part);
          continue;
        }
        Interleave<T> interleave{};
        std::vector<at::Tensor> parts;
        std::fill(interleave.plane_of, interleave.plane_of + 4, -1);
        for (int q = 0; q < plan_.planes; ++q) {
          parts.push_back(at::empty({chunk.images, g_.in_channels, chunk.rows, g_.out_width}, grad.options(),
                                    at::MemoryFormat::ChannelsLast));
          multiply_back<T>(spread<T>(grad, q, chunk), filters[q], parts.back());
          interleave.planes[q] = parts.back().template const_data_ptr<T>();
          interleave.plane_of[2 * plan_.plane[q].row + plan_.plane[q].column] = q;
        }
        const int64_t first = g_.stride * chunk.row, last = std::min(first + g_.stride * chunk.rows, g_.height);
        interleave.walk = Walk::of(g_.in_channels, g_.width, last - first, chunk.images);
        interleave.rows = rows_of(chunk.row, chunk.rows, g_.in_channels);
        interleave.out = out.mutable_data_ptr<T>() + chunk.image * out.stride(0);
        interleave.strides = strides_of(out), interleave.width = static_cast<int>(g_.width);
        interleave.channels = static_cast<int>(g_.in_channels), interleave.first_row = static_cast<int>(first);
        Device::run(interleave, interleave.walk.count());
      }
    });
    return out;
  }

  at::Tensor grad_weight(const at::Tensor& gradient, const at::Tensor& input) const {
    const at::Tensor grad = gradient.contiguous(gradient.suggest_memory_format());
    const at::Tensor x = input.contiguous(input.suggest_memory_format());
    at::Tensor out = at::empty({g_.out_channels, g_.group_in, 3, 3}, grad.options());
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "inception_conv2d_grad_weight", [&] {
      using T = scalar_t;
      using Sum = typename Accumulator<T>::Type;  // of the chunks' sums
      const auto sum_type = c10::CppTypeToScalarType<Sum>::value;
      std::vector<at::Tensor> sums(plan_.planes);
      const bool one_image = !x.is_contiguous(at::MemoryFormat::ChannelsLast) && g_.stride == 1;
      for (const Chunk& chunk : cut(g_, plan_.total_columns * sizeof(T), 0, 0, one_image))
        for (int q = 0; q < plan_.planes; ++q) {
          const Pixels taps{spread<T>(grad, q, chunk), g_.groups};
          const Pixels read = pixels<T>(x, q, chunk);
          at::Tensor part = at::empty({g_.groups, plan_.plane[q].columns, g_.group_in}, x.options().dtype(sum_type));
          // products of matrices have a switch for TF32 of their own, which must not take digits that convolutions keep
          std::optional<at::NoTF32Guard> guard;
          if (Device::exact_float()) guard.emplace();
          multiply(part, taps.matrix().transpose(1, 2), read.matrix());
          sums[q] = sums[q].defined() ? sums[q].add_(part) : part;
        }
      UnpackFilters<Sum, T> unpack{};
      for (int q = 0; q < plan_.planes; ++q) unpack.planes[q] = sums[q].template const_data_ptr<Sum>();
      unpack.sources = tables_.sources();
      unpack.channels = static_cast<uint32_t>(g_.group_in), unpack.filters = static_cast<uint32_t>(g_.out_channels);
      unpack.out = out.mutable_data_ptr<T>();
      Device::run(unpack, out.numel());
    });
    return out;
  }

 private:
  Rows rows_of(int64_t first, int64_t count, int64_t pitch) const {
    return {static_cast<int>(first), static_cast<int>(count), static_cast<int>(g_.out_width), pitch};
  }

  // fp32 goes through 1x1 convolutions, which want channels_last; the products of the other types read either format.
  at::Tensor arranged(const at::Tensor& x) const {
    const bool last = x.scalar_type() == at::kFloat;
    return x.contiguous(last ? at::MemoryFormat::ChannelsLast : x.suggest_memory_format());
  }

  // The filters of each plane: [G * columns, C_in / G].
  template <typename T>
  std::vector<at::Tensor> pack(const at::Tensor& weight) const {
    std::vector<at::Tensor> filters;
    for (int q = 0; q < plan_.planes; ++q) {
      filters.push_back(at::empty({g_.groups * plan_.plane[q].columns, g_.group_in}, weight.options()));
      PackFilters<T> pass{weight.const_data_ptr<T>(), strides_of(weight), tables_.columns(q),
                          static_cast<uint32_t>(g_.group_in), filters.back().template mutable_data_ptr<T>()};
      Device::run(pass, filters.back().numel());
    }
    return filters;
  }

  // What a plane holds of the input, rows [held, held + held_rows).
  template <typename T>
  Pixels pixels(const at::Tensor& x, int q, const Chunk& chunk) const {
    const at::Tensor images = x.narrow(0, chunk.image, chunk.images);
    if (g_.stride == 1) return {images.narrow(2, chunk.held, chunk.held_rows), g_.groups};
    at::Tensor out = at::empty({chunk.images, g_.in_channels, chunk.held_rows, g_.out_width}, x.options(),
                               at::MemoryFormat::ChannelsLast);
    Thin<T> thin{};
    thin.walk = Walk::of(g_.in_channels, g_.out_width, chunk.held_rows, chunk.images);
    thin.x = images.template const_data_ptr<T>(), thin.strides = strides_of(x);
    thin.height = static_cast<int>(g_.height), thin.width = static_cast<int>(g_.width);
    thin.channels = static_cast<int>(g_.in_channels), thin.stride = static_cast<int>(g_.stride);
    thin.row = plan_.plane[q].row, thin.column = plan_.plane[q].column;
    const bool last = x.is_contiguous(at::MemoryFormat::ChannelsLast);
    thin.whole = last && reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
    thin.out = out.mutable_data_ptr<T>(), thin.rows = rows_of(chunk.held, chunk.held_rows, g_.in_channels);
    Device::run(thin, thin.walk.count());
    return {out, g_.groups};
  }

  // [P, G * columns]: every pixel with every tap of a plane.
  template <typename T>
  at::Tensor product(const Pixels& read, const at::Tensor& filters) const {
    const int64_t columns = filters.size(0);
    if (read.map.scalar_type() == at::kFloat) {
      const at::Tensor out = convolve_points(read.map, filters.view({columns, g_.group_in, 1, 1}), g_.groups);
      return out.permute({0, 2, 3, 1}).view({-1, columns});
    }
    const at::Tensor matrix = read.matrix();
    const auto type = c10::CppTypeToScalarType<typename Partial<T>::Type>::value;
    at::Tensor out = at::empty({matrix.size(1), columns}, matrix.options().dtype(type));
    multiply(out.view({-1, g_.groups, columns / g_.groups}).permute({1, 0, 2}), matrix,
             by_group(filters).transpose(1, 2));
    return out;
  }

  at::Tensor by_group(const at::Tensor& filters) const { return filters.view({g_.groups, -1, g_.group_in}); }

  // [n, G * columns, rows, width], channels_last: the gradient of each product of a plane, rows of the chunk.
  template <typename T>
  at::Tensor spread(const at::Tensor& grad, int q, const Chunk& chunk) const {
    const int64_t columns = g_.groups * plan_.plane[q].columns;
    at::Tensor out =
        at::empty({chunk.images, columns, chunk.rows, g_.out_width}, grad.options(), at::MemoryFormat::ChannelsLast);
    Spread<T> pass{};
    pass.walk = Walk::of(columns, g_.out_width, chunk.rows, chunk.images);
    pass.grad = grad.const_data_ptr<T>() + chunk.image * grad.stride(0), pass.strides = strides_of(grad);
    pass.height = static_cast<int>(g_.out_height), pass.width = static_cast<int>(g_.out_width);
    pass.columns = tables_.columns(q), pass.alike = tables_.alike_columns(q);
    const bool last = grad.is_contiguous(at::MemoryFormat::ChannelsLast) && g_.out_channels % kVector == 0;
    pass.whole = last && reinterpret_cast<uintptr_t>(grad.const_data_ptr<T>()) % 16 == 0;
    pass.out = out.mutable_data_ptr<T>(), pass.rows = rows_of(chunk.row, chunk.rows, columns);
    Device::run(pass, pass.walk.count());
    return out;
  }

  // taps [n, G * columns, rows, width] . filters -> out [n, C_in, rows, width], a view.
  template <typename T>
  void multiply_back(const at::Tensor& taps, const at::Tensor& filters, at::Tensor out) const {
    if (taps.scalar_type() == at::kFloat) {
      const at::Tensor transposed = by_group(filters).transpose(1, 2).contiguous().view({g_.in_channels, -1, 1, 1});
      out.copy_(convolve_points(taps, transposed, g_.groups));
      return;
    }
    multiply(Pixels{out, g_.groups}.matrix(), Pixels{taps, g_.groups}.matrix(), by_group(filters));
  }

  Geometry g_;
  Tables tables_;
  const Plan& plan_;
};

// Forward pass; with `hybrid`, torch's own convolution computes the longest run, as far as it fills vectors.
template <typename Device>
at::Tensor forward(const Geometry& g, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   Pattern pattern, bool relu, bool hybrid) {
  const Range range = hybrid ? longest_run(pattern, g.groups) : Range{};
  at::Tensor ready;
  if (!range.empty()) {
    const int64_t dilation[] = {range.dilation_h, range.dilation_w}, stride[] = {g.stride, g.stride};
    ready = at::conv2d(x, weight.narrow(0, range.begin, range.end - range.begin), {}, stride,
                       c10::IntArrayRef(dilation), dilation)
                .contiguous(at::MemoryFormat::ChannelsLast);
  }
  return Call<Device>(g, pattern, range).forward(x, weight, bias, ready, range, relu);
}

}  // namespace icconv_mm::inception_conv::kn2row
