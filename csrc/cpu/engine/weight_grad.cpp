// See weight_grad.h.
#include "weight_grad.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "../../common/tensors.h"

namespace icconv_mm::cpu {
namespace {

constexpr int64_t kCacheBytes = 384 * 1024;  // of one block of input channels that a thread works on at a time
constexpr int64_t kMinRows = 4;

// A few outputs and a few vectors of input channels, for all taps of their family.
struct Unit {
  const WeightFamily* family;
  size_t first;  // of the family's outputs
  int rows, vectors;
  int64_t channel;  // packed
  int64_t sums;     // offset of [taps][rows][vectors][lanes] in those of its block
  int64_t block() const { return channel / kBlock; }
  int64_t cost() const { return static_cast<int64_t>(family->taps.size()) * rows * vectors; }
};

class WeightGradient {
 public:
  WeightGradient(const Kernels& k, const std::vector<WeightFamily>& families, const Packed& x, const Packed& grad,
                 int64_t stride)
      : k_(k), x_(x), grad_(grad), stride_(stride) {
    while (most_rows_ < kMaxRows && k.weight[most_rows_ + 1][1]) ++most_rows_;
    for (const WeightFamily& family : families) add_units(family);
    // a thread goes through the input block by block
    std::stable_sort(units_.begin(), units_.end(), [](const Unit& a, const Unit& b) { return a.block() < b.block(); });
    for (const Unit& unit : units_) {
      size_ += unit.cost() * k.lanes;
      for (const Tap& tap : unit.family->taps) reach_ = std::max(reach_, std::abs(tap.dy));
    }
    reach_ = std::min(reach_, x.height);
  }

  void run() {
    const int64_t parts = at::get_num_threads();
    const std::vector<size_t> cuts = cut(parts);
    const int64_t most = place_sums(cuts);
    const at::Tensor sums = empty({parts, most}, at::TensorOptions().dtype(at::kFloat));
    at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) run_part(cuts[i], cuts[i + 1], sums.mutable_data_ptr<float>() + i * most);
    });
  }

 private:
  void add_units(const WeightFamily& family) {
    const int64_t outputs = static_cast<int64_t>(family.outputs.size());
    const int64_t tiles = (outputs + most_rows_ - 1) / most_rows_;
    for (int64_t at = family.channel / k_.lanes * k_.lanes, end = family.channel + family.inside; at < end;) {
      const int64_t left = std::min(round_up(end, k_.lanes), (at / kBlock + 1) * kBlock) - at;
      const int vectors = left >= 4 * k_.lanes ? 4 : left >= 2 * k_.lanes ? 2 : 1;
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t first = outputs * i / tiles, last = outputs * (i + 1) / tiles;
        units_.push_back({&family, static_cast<size_t>(first), static_cast<int>(last - first), vectors, at, 0});
      }
      at += vectors * k_.lanes;
    }
  }

  std::vector<size_t> cut(int64_t parts) const {
    std::vector<size_t> cuts(parts + 1, units_.size());
    cuts[0] = 0;
    int64_t part = 1, before = 0;
    for (size_t i = 0; i < units_.size(); ++i) {
      while (part < parts && before * k_.lanes * parts >= size_ * part) cuts[part++] = i;
      before += units_[i].cost();
    }
    return cuts;
  }

  // A thread keeps the sums of one block, which it finishes before the next. Returns the size of the largest.
  int64_t place_sums(const std::vector<size_t>& cuts) {
    int64_t most = 0;
    for (size_t part = 1; part < cuts.size(); ++part)
      for (size_t first = cuts[part - 1]; first < cuts[part];) {
        int64_t size = 0;
        for (const size_t last = block_end(first, cuts[part]); first < last; ++first) {
          units_[first].sums = size;
          size += units_[first].cost() * k_.lanes;
        }
        most = std::max(most, size);
      }
    return most;
  }

  // Where the units of the block of `first` end.
  size_t block_end(size_t first, size_t end) const {
    size_t last = first;
    while (last < end && units_[last].block() == units_[first].block()) ++last;
    return last;
  }

  void run_part(size_t begin, size_t end, float* sums) {
    const int64_t row_bytes = std::max<int64_t>(x_.layout.row * stride_ * static_cast<int64_t>(sizeof(float)), 1);
    const int64_t rows = std::max(kCacheBytes / row_bytes - 2 * reach_ / stride_, kMinRows);
    for (size_t first = begin; first < end;) {
      const size_t last = block_end(first, end);
      std::fill(sums, sums + units_[last - 1].sums + units_[last - 1].cost() * k_.lanes, 0.0f);
      for (int64_t n = 0; n < grad_.batch; ++n)
        for (int64_t y = 0; y < grad_.height; y += rows)
          for (size_t i = first; i < last; ++i)
            run_unit(units_[i], n, y, std::min(y + rows, grad_.height), sums + units_[i].sums);
      for (size_t i = first; i < last; ++i) unpack(units_[i], sums + units_[i].sums);
      first = last;
    }
  }

  void run_unit(const Unit& unit, int64_t n, int64_t begin, int64_t end, float* sums) {
    const Layout &in = x_.layout, &out = grad_.layout;
    int64_t channels[kMaxRows];
    for (int r = 0; r < unit.rows; ++r) {
      const int64_t channel = unit.family->outputs[unit.first + r].channel;
      channels[r] = channel / kBlock * out.block + channel % kBlock;
    }
    for (const Tap& tap : unit.family->taps) {
      // the rows of the gradient whose input lies inside the map
      const int64_t dy = std::clamp(tap.dy, -x_.height, x_.height), dx = std::clamp(tap.dx, -in.border, in.border);
      const int64_t y0 = std::max(begin, dy < 0 ? (-dy + stride_ - 1) / stride_ : 0);
      const int64_t y1 = std::min(end, dy < x_.height ? (x_.height - 1 - dy) / stride_ + 1 : 0);
      if (y0 < y1) {
        const float* x = x_.origin() + n * in.image + unit.block() * in.block + (y0 * stride_ + dy) * in.row +
                         dx * kBlock + unit.channel % kBlock;
        k_.weight[unit.rows][unit.vectors]({x, grad_.origin() + n * out.image + y0 * out.row, channels, y1 - y0,
                                            grad_.width, stride_ * in.row, stride_ * kBlock, out.row},
                                           sums);
      }
      sums += unit.rows * unit.vectors * k_.lanes;
    }
  }

  void unpack(const Unit& unit, const float* sums) const {
    const WeightFamily& family = *unit.family;
    const int64_t taps = static_cast<int64_t>(family.taps.size()), lanes = unit.vectors * k_.lanes;
    const int64_t first = std::max(family.channel - unit.channel, int64_t{0});
    const int64_t last = std::min(family.channel + family.inside - unit.channel, lanes);
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int r = 0; r < unit.rows; ++r, sums += lanes) {
        float* result = family.result + family.outputs[unit.first + r].filter * family.inside * taps;
        for (int64_t lane = first; lane < last; ++lane)
          result[(unit.channel + lane - family.channel) * taps + family.taps[tap].number] = sums[lane];
      }
  }

  const Kernels& k_;
  const Packed &x_, &grad_;
  int64_t stride_, size_ = 0, reach_ = 0;
  int most_rows_ = 1;
  std::vector<Unit> units_;
};

}  // namespace

void weight_gradient(const Kernels& k, std::vector<WeightFamily> families, const Packed& x, const Packed& grad,
                     int64_t stride) {
  std::vector<WeightFamily> small, large;
  for (WeightFamily& family : families) (family.padded < k.lanes ? small : large).push_back(std::move(family));
  if (!large.empty()) WeightGradient(k, large, x, grad, stride).run();
  if (!small.empty()) weight_gradient_of_small_groups(k, small, x, grad, stride);
}

}  // namespace icconv_mm::cpu
