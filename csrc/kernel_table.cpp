// See kernel_table.h.
#include "kernel_table.h"

#include <ATen/core/List.h>
#include <c10/core/ScalarType.h>
#include <torch/library.h>

#include <atomic>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace icconv_mm {
namespace {

struct Entry {
  int64_t least, most;  // pixels
  std::string kernel;
};

struct State {
  std::mutex mutex;
  std::unordered_map<std::string, std::vector<Entry>> entries;
  std::unordered_map<std::string, std::string> forced;
  std::atomic<bool> empty{true};  // a call that finds it so takes no lock

  void settle() { empty = entries.empty() && forced.empty(); }
};

State& state() {
  static State* made = new State;  // threads may ask while the process ends
  return *made;
}

std::string key_of(const std::string& name, const std::string& architecture, const std::string& dtype,
                   const ShapeClass& s) {
  std::string key = name + ' ' + architecture + ' ' + dtype;
  for (const int64_t number : {s.group_in, s.group_out, s.groups, s.stride}) key += ' ' + std::to_string(number);
  return key + ' ' + s.levels;
}

std::string look_up(const std::string& name, const std::string& architecture, const std::string& dtype,
                    const ShapeClass& shape) {
  State& s = state();
  if (s.empty) return {};
  const std::lock_guard<std::mutex> lock(s.mutex);
  if (const auto found = s.forced.find(name); found != s.forced.end()) return found->second;
  const auto found = s.entries.find(key_of(name, architecture, dtype, shape));
  if (found == s.entries.end()) return {};
  for (const Entry& entry : found->second)
    if (entry.least <= shape.pixels && shape.pixels <= entry.most) return entry.kernel;
  return {};
}

ShapeClass class_of(c10::IntArrayRef shape, std::string levels) {
  TORCH_CHECK(shape.size() == 5, "kernel table: a shape is (channels in, channels out, groups, stride, pixels), got ",
              shape);
  return {shape[0], shape[1], shape[2], shape[3], shape[4], std::move(levels)};
}

// One entry per kernel: names = (operator, architecture, dtype, levels), shapes = (channels in and out of a group,
// groups, stride, least and most pixels).
void set_table(const c10::List<std::string>& names, c10::IntArrayRef shapes, const c10::List<std::string>& kernels) {
  TORCH_CHECK(names.size() == 4 * kernels.size() && shapes.size() == 6 * kernels.size(),
              "set_kernel_table: expected 4 names and 6 numbers for each of ", kernels.size(), " kernels, got ",
              names.size(), " and ", shapes.size());
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  s.entries.clear();
  for (size_t i = 0; i < kernels.size(); ++i) {
    const c10::IntArrayRef numbers = shapes.slice(6 * i, 6);
    const ShapeClass shape{numbers[0], numbers[1], numbers[2], numbers[3], 0, names.get(4 * i + 3)};
    s.entries[key_of(names.get(4 * i), names.get(4 * i + 1), names.get(4 * i + 2), shape)].push_back(
        {numbers[4], numbers[5], kernels.get(i)});
  }
  s.settle();
}

std::string force(std::string name, std::string kernel) {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  const auto found = s.forced.find(name);
  const std::string before = found == s.forced.end() ? std::string() : found->second;
  if (kernel.empty())
    s.forced.erase(name);
  else
    s.forced[name] = std::move(kernel);
  s.settle();
  return before;
}

std::string name_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    default:
      return c10::toString(dtype);
  }
}

}  // namespace

std::string chosen_kernel(const char* name, int capability, at::ScalarType dtype, const ShapeClass& shape) {
  if (state().empty) return {};
  return look_up(name, std::to_string(capability / 10) + '.' + std::to_string(capability % 10), name_of(dtype), shape);
}

TORCH_LIBRARY_FRAGMENT(icconv_mm, m) {
  m.def("set_kernel_table(str[] names, int[] shapes, str[] kernels) -> ()", set_table);
  // for every call of an operator that the kernel can serve, '' for none; returns the one before
  m.def("force_kernel(str name, str kernel) -> str", force);
  m.def("kernel_for(str name, str architecture, str dtype, int[] shape, str levels) -> str",
        [](std::string name, std::string architecture, std::string dtype, c10::IntArrayRef shape, std::string levels) {
          return look_up(name, architecture, dtype, class_of(shape, std::move(levels)));
        });
}

}  // namespace icconv_mm
