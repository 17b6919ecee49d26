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

// Of an entry: that the reference was faster.
constexpr char kReference[] = "reference";

// Whether an entry names the kernel that serves the operator without one, or none of its kernels.
bool changes_nothing(const std::string& op, const std::string& kernel) {
  return kernel == kReference || (kernel == "tiled" && op.rfind("inception_conv2d", 0) == 0);
}

struct State {
  std::mutex mutex;
  std::unordered_map<std::string, std::vector<Entry>> entries;
  std::unordered_map<std::string, std::string> in_use;  // kernels by operator
  bool table_decides = false;                           // whether an entry changes what serves a call
  std::atomic<bool> idle{true};                         // a call that finds it so takes no lock

  void settle() { idle = !table_decides && in_use.empty(); }
};

State& state() {
  static State* made = new State;  // threads may ask while the process ends
  return *made;
}

std::string key_of(const std::string& op, const std::string& architecture, const std::string& dtype,
                   const ShapeClass& s) {
  std::string key = op + ' ' + architecture + ' ' + dtype;
  for (const int64_t number : {s.group_in, s.group_out, s.groups, s.stride}) key += ' ' + std::to_string(number);
  return key + ' ' + s.levels;
}

// The kernel in use, else that of the table, kReference among them; empty where there is neither.
std::string look_up(const std::string& op, const std::string& architecture, const std::string& dtype,
                    const ShapeClass& shape) {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  if (const auto found = s.in_use.find(op); found != s.in_use.end()) return found->second;
  const auto found = s.entries.find(key_of(op, architecture, dtype, shape));
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
  s.table_decides = false;
  for (size_t i = 0; i < kernels.size(); ++i) {
    const c10::IntArrayRef numbers = shapes.slice(6 * i, 6);
    const ShapeClass shape{numbers[0], numbers[1], numbers[2], numbers[3], 0, names.get(4 * i + 3)};
    s.entries[key_of(names.get(4 * i), names.get(4 * i + 1), names.get(4 * i + 2), shape)].push_back(
        {numbers[4], numbers[5], kernels.get(i)});
    s.table_decides = s.table_decides || !changes_nothing(names.get(4 * i), kernels.get(i));
  }
  s.settle();
}

std::string use(std::string op, std::string kernel) {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  const auto found = s.in_use.find(op);
  const std::string before = found == s.in_use.end() ? std::string() : found->second;
  if (kernel.empty())
    s.in_use.erase(op);
  else
    s.in_use[op] = std::move(kernel);
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

std::string chosen_kernel(const char* op, int capability, at::ScalarType dtype, const ShapeClass& shape) {
  if (state().idle) return {};
  const std::string architecture = std::to_string(capability / 10) + '.' + std::to_string(capability % 10);
  const std::string kernel = look_up(op, architecture, name_of(dtype), shape);
  return kernel == kReference ? std::string() : kernel;
}

TORCH_LIBRARY_FRAGMENT(icconv_mm, m) {
  m.def("set_kernel_table(str[] names, int[] shapes, str[] kernels) -> ()", set_table);
  // for every call of the operator that the kernel takes, '' for none; returns the one before
  m.def("use_kernel(str op, str kernel) -> str", use);
  // the kernel in use, else that of the table, 'reference' among them; '' where there is neither
  m.def("find_kernel(str op, str architecture, str dtype, int[] shape, str levels) -> str",
        [](std::string op, std::string architecture, std::string dtype, c10::IntArrayRef shape, std::string levels) {
          return look_up(op, architecture, dtype, class_of(shape, std::move(levels)));
        });
}

}  // namespace icconv_mm
