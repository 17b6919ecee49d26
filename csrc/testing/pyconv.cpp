// The pyramidal convolution by kernels that CUDA chooses among, on the CPU, so that tests need no GPU. 'tiled' follows
// the program of the tensor-core kernel, fragment by fragment.
#include <ATen/Dispatch.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../pyconv/levels.h"

namespace icconv_mm::pyconv {
namespace {

template <typename T>
std::vector<T> pack(const Call& call, const Program& program, const int* numbers, at::TensorList weights,
                    bool backward) {
  std::vector<T> packed(size_t(program.fragments) * kLanes * 4);
  PackFragments<T> pass{};
  std::vector<at::Tensor> kept;
  for (const at::Tensor& weight : weights) kept.push_back(weight.contiguous());
  for (size_t l = 0; l < kept.size(); ++l) pass.levels[l] = filters_of<T>(call, call.levels[l], kept[l]);
  pass.count = static_cast<int>(kept.size());
  pass.fragments = reinterpret_cast<const Fragment*>(numbers + program.fragment_at);
  pass.columns = static_cast<int>(backward ? call.in_channels : call.out_channels);
  pass.channels = static_cast<int>(backward ? call.out_channels : call.in_channels);
  pass.backward = backward, pass.out = packed.data();
  for (size_t i = 0; i < packed.size(); ++i) pass(static_cast<uint32_t>(i));
  return packed;
}

// What a block of threads does, pixel by pixel: the sums of 64 columns, in the order of the steps and offsets.
template <typename T>
at::Tensor execute(const Call& call, const at::Tensor& source, at::TensorList weights, bool backward) {
  const std::vector<int> numbers = make_program(call, backward);
  const Program& program = *reinterpret_cast<const Program*>(numbers.data());
  const auto packed = pack<T>(call, program, numbers.data(), weights, backward);
  const auto* blocks = reinterpret_cast<const Block*>(numbers.data() + program.block_at);
  const auto* steps = reinterpret_cast<const Step*>(numbers.data() + program.step_at);
  const auto* offsets = reinterpret_cast<const Offset*>(numbers.data() + program.offset_at);
  const int64_t columns = backward ? call.in_channels : call.out_channels, channels = source.size(1);
  const int64_t height = backward ? call.height : call.out_height, width = backward ? call.width : call.out_width;
  at::Tensor out = at::zeros({call.batch, columns, height, width}, source.options().dtype(at::kFloat));
  const auto from = source.accessor<T, 4>();
  auto to = out.accessor<float, 4>();
  for (int64_t n = 0; n < call.batch; ++n)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x)
        for (int b = 0; b < program.blocks; ++b)
          for (int s = blocks[b].first_step; s < blocks[b].first_step + blocks[b].steps; ++s) {
            const T* fragment = packed.data() + size_t(steps[s].first_fragment) * kLanes * 4;
            for (int o = steps[s].first_offset; o < steps[s].first_offset + steps[s].offsets; ++o) {
              const int64_t row = y * call.stride + offsets[o].dy, column = x * call.stride + offsets[o].dx;
              const bool inside = row >= 0 && row < source.size(2) && column >= 0 && column < source.size(3);
              for (int tile = 0; tile < kTilesOfBlock; ++tile) {
                if (!(offsets[o].mask >> tile & 1)) continue;
                for (int i = 0; inside && i < 4 * kLanes; ++i) {
                  const int64_t c = steps[s].channel + i / 4 % 4 * 2 + i % 2 + i % 4 / 2 * 8;
                  const int64_t k = b * kTilesOfBlock * kTileColumns + tile * kTileColumns + i / 16;
                  if (c < channels && k < columns)
                    to[n][k][y][x] += static_cast<float>(from[n][c][row][column]) * static_cast<float>(fragment[i]);
                }
                fragment += 4 * kLanes;
              }
            }
          }
  return out;
}

at::Tensor by_program(const Call& call, const at::Tensor& source, at::TensorList weights, bool backward) {
  const std::string reason = refusal(call, source.scalar_type(), backward);
  TORCH_CHECK(reason.empty(), reason);
  at::Tensor out;
  AT_DISPATCH_REDUCED_FLOATING_TYPES(source.scalar_type(), "pyconv2d",
                                     [&] { out = execute<scalar_t>(call, source, weights, backward); });
  return out;
}

void check_name(const std::string& kernel, bool tiled) {
  TORCH_CHECK(is_filled(kernel) || (tiled && kernel == "tiled"), "pyconv2d has no kernel '", kernel,
              "' to ask for by name");
}

at::Tensor output(c10::string_view name, const at::Tensor& x, at::TensorList weights, const Optional<at::Tensor>& bias,
                  c10::IntArrayRef groups, int64_t stride, int64_t dilation, bool relu) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Call call = check_forward(x, weights, bias, groups, stride, dilation);
  const std::string kernel(name);
  check_name(kernel, true);
  const at::Tensor shift = bias ? bias->to(x.scalar_type()) : at::Tensor();
  if (is_filled(kernel)) return forward_filled(kernel, call, x, weights, shift, relu);
  at::Tensor out = by_program(call, x, weights, false);
  if (shift.defined()) out.add_(shift.view({-1, 1, 1}));
  return (relu ? out.relu_() : out).to(x.options(), false, false, x.suggest_memory_format());
}

at::Tensor grad_input(c10::string_view name, const at::Tensor& grad, at::TensorList weights, c10::IntArrayRef size,
                      c10::IntArrayRef groups, int64_t stride, int64_t dilation) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Call call = check_grad_input(grad, weights, size, groups, stride, dilation);
  const std::string kernel(name);
  check_name(kernel, true);
  if (is_filled(kernel)) return grad_input_filled(kernel, call, grad, weights);
  return by_program(call, grad, weights, true).to(grad.options(), false, false, grad.suggest_memory_format());
}

std::vector<at::Tensor> grad_weight(c10::string_view name, const at::Tensor& grad, const at::Tensor& x,
                                    c10::IntArrayRef shapes, c10::IntArrayRef groups, int64_t stride,
                                    int64_t dilation) {
  const at::AutoDispatchBelowAutograd no_gradient;  // torch's operators within would ask for one
  const Call call = check_grad_weight(grad, x, shapes, groups, stride, dilation);
  const std::string kernel(name);
  check_name(kernel, false);
  return grad_weight_filled(kernel, call, grad, x);
}

}  // namespace

TORCH_LIBRARY_IMPL(icconv_mm, CPU, m) {
  m.impl("pyconv2d_by", TORCH_FN(output));
  m.impl("pyconv2d_grad_input_by", TORCH_FN(grad_input));
  m.impl("pyconv2d_grad_weight_by", TORCH_FN(grad_weight));
}

}  // namespace icconv_mm::pyconv
