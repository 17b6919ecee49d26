// See geometry.h.
#include "geometry.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "../common/common.h"

namespace icconv_mm::inception_conv {
namespace {

void check_pair(const char* name, const at::Tensor& first, const at::Tensor& second) {
  TORCH_CHECK(first.dim() == 4 && second.dim() == 4, name, ": tensors must be 4-d, got ", first.sizes(), " and ",
              second.sizes());
  TORCH_CHECK(first.device() == second.device() && first.scalar_type() == second.scalar_type(), name,
              ": tensors must be alike, got ", first.scalar_type(), " on ", first.device(), " and ",
              second.scalar_type(), " on ", second.device());
}

void check_pattern(const char* name, Pattern pattern, int64_t out_channels) {
  TORCH_CHECK(pattern.size() % 3 == 0, name, ": the pattern must be triples, got ", pattern.size(), " numbers");
  int64_t sum = 0;
  for (size_t i = 0; i < pattern.size(); i += 3) {
    const int64_t count = pattern[i], dh = pattern[i + 1], dw = pattern[i + 2];
    const bool fits = dh >= 1 && dw >= 1 && dh <= kMaxStep && dw <= kMaxStep;
    TORCH_CHECK(count >= 0 && count <= out_channels && fits, name, ": bad run (", count, ", ", dh, ", ", dw, ") for ",
                out_channels, " filters");
    sum += count;
  }
  TORCH_CHECK(sum == out_channels, name, ": the pattern sums to ", sum, ", the weight has ", out_channels, " filters");
}

// `x` and `weight` are shapes of four numbers.
Geometry check_sizes(const char* name, c10::IntArrayRef x, c10::IntArrayRef weight, Pattern pattern, int64_t stride,
                     int64_t groups) {
  TORCH_CHECK(stride >= 1 && stride <= kMaxStep && groups >= 1, name, ": stride must be in 1..", kMaxStep,
              " and groups positive, got ", stride, " and ", groups);
  TORCH_CHECK(weight[2] == 3 && weight[3] == 3, name, ": the weight must be [C_out, C_in / groups, 3, 3], got ",
              weight);
  TORCH_CHECK(x[1] == channels_of(groups, weight[1]) && weight[0] % groups == 0, name, ": x ", x, " and weight ",
              weight, " do not fit ", groups, " groups");
  TORCH_CHECK(x[2] >= 0 && x[3] >= 0, name, ": height and width must not be negative, got ", x[2], " x ", x[3]);
  check_pattern(name, pattern, weight[0]);
  // padding = dilation, so the output size does not depend on the run
  const auto strided = [&](int64_t size) { return size > 0 ? (size - 1) / stride + 1 : 0; };
  return {x[0],          x[1],   x[2],   x[3],      weight[0],         strided(x[2]),
          strided(x[3]), stride, groups, weight[1], weight[0] / groups};
}

void check_grad(const char* name, const at::Tensor& grad, const Geometry& g) {
  const int64_t expected[] = {g.batch, g.out_channels, g.out_height, g.out_width};
  TORCH_CHECK(grad.sizes() == c10::IntArrayRef(expected), name, ": expected a gradient of ", c10::IntArrayRef(expected),
              ", got ", grad.sizes());
}

}  // namespace

Geometry check_forward(const at::Tensor& x, const at::Tensor& weight, const Optional<at::Tensor>& bias, Pattern pattern,
                       int64_t stride, int64_t groups) {
  constexpr char name[] = "inception_conv2d";
  check_pair(name, x, weight);
  const Geometry g = check_sizes(name, x.sizes(), weight.sizes(), pattern, stride, groups);
  TORCH_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == g.out_channels && bias->device() == x.device()), name,
              ": the bias must be [", g.out_channels, "] on ", x.device(), ", got ", bias->sizes(), " on ",
              bias->device());
  return g;
}

Geometry check_grad_input(const at::Tensor& grad, const at::Tensor& weight, c10::IntArrayRef size, Pattern pattern,
                          int64_t stride, int64_t groups) {
  constexpr char name[] = "inception_conv2d_grad_input";
  check_pair(name, grad, weight);
  TORCH_CHECK(size.size() == 2, name, ": expected a height and a width, got ", size);
  const int64_t shape[] = {grad.size(0), channels_of(groups, weight.size(1)), size[0], size[1]};
  const Geometry g = check_sizes(name, shape, weight.sizes(), pattern, stride, groups);
  check_grad(name, grad, g);
  return g;
}

Geometry check_grad_weight(const at::Tensor& grad, const at::Tensor& x, Pattern pattern, int64_t stride,
                           int64_t groups) {
  constexpr char name[] = "inception_conv2d_grad_weight";
  check_pair(name, grad, x);
  TORCH_CHECK(groups >= 1, name, ": groups must be positive, got ", groups);
  const int64_t shape[] = {grad.size(1), x.size(1) / groups, 3, 3};
  const Geometry g = check_sizes(name, x.sizes(), shape, pattern, stride, groups);
  check_grad(name, grad, g);
  return g;
}

std::vector<Run> cut_runs(Pattern pattern, int64_t group_out) {
  std::vector<Run> runs;
  int64_t begin = 0;
  for (size_t i = 0; i < pattern.size(); i += 3)
    for (const int64_t end = begin + pattern[i]; begin < end;) {
      const int64_t group = begin / group_out, cut = std::min(end, (group + 1) * group_out);
      runs.push_back({begin, cut, pattern[i + 1], pattern[i + 2], group});
      begin = cut;
    }
  return runs;
}

int64_t max_dilation(Pattern pattern, int axis) {
  int64_t largest = 1;
  for (size_t i = 0; i < pattern.size(); i += 3)
    if (pattern[i] > 0) largest = std::max(largest, pattern[i + 1 + axis]);
  return largest;
}

}  // namespace icconv_mm::inception_conv
