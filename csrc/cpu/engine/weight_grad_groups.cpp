// The gradient for the weights of small groups. A vector of input channels holds several groups, so the gradient of the
// output is spread over the lanes first: each lane gets that of an output channel of its own group.
#include <ATen/Parallel.h>

#include <algorithm>
#include <map>

#include "weight_grad.h"

namespace icconv_mm::cpu {
namespace {

// Neighbouring taps of one row of the kernel.
struct TapRow {
  int64_t dy;
  size_t first, count;
};

// Some outputs of all groups of a vector that have these taps, for some of the rows of taps.
struct Unit {
  const std::vector<const WeightFamily*>* families;  // one per group
  size_t first;                                      // of the outputs of each family
  int rows;
  size_t begin, end;  // rows of taps
};

std::vector<TapRow> rows_of(const std::vector<Tap>& taps) {
  std::vector<TapRow> rows;
  for (size_t i = 0; i < taps.size(); ++i) {
    if (rows.empty() || rows.back().dy != taps[i].dy || rows.back().count == kMaxTaps)
      rows.push_back({taps[i].dy, i, 0});
    ++rows.back().count;
  }
  return rows;
}

// Each value `Lanes` times: of pixels that lie kBlock apart, into pixels that lie `step` apart.
template <int Lanes>
void spread(const float* from, int64_t width, float* to, int64_t step) {
  for (int64_t x = 0; x < width; ++x, from += kBlock, to += step)
    for (int i = 0; i < Lanes; ++i) to[i] = *from;
}

class SmallGroups {
 public:
  SmallGroups(const Kernels& k, const std::vector<WeightFamily>& families, const Packed& x, const Packed& grad,
              int64_t stride)
      : k_(k), x_(x), grad_(grad), stride_(stride) {
    for (const WeightFamily& family : families) {
      std::vector<int64_t> key{family.channel / k.lanes, reinterpret_cast<intptr_t>(family.result)};
      for (const Tap& tap : family.taps) key.insert(key.end(), {tap.dy, tap.dx});
      alike_[std::move(key)].push_back(&family);
    }
    for (const auto& each : alike_) add_units(each.second);
  }

  void run() const {
    at::parallel_for(0, static_cast<int64_t>(units_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) run_unit(units_[i]);
    });
  }

 private:
  using Alike = std::vector<const WeightFamily*>;

  // Rows of taps are shared among units only where there are few others: each spreads the gradient anew.
  void add_units(const Alike& families) {
    const std::vector<TapRow> taps = rows_of(families[0]->taps);
    size_t outputs = 0, most = 1;
    for (const WeightFamily* family : families) outputs = std::max(outputs, family->outputs.size());
    size_t widest = 0;
    for (const TapRow& row : taps) widest = std::max(widest, row.count);
    while (most < kMaxGroupRows && k_.group_weight[most + 1][widest]) ++most;
    const size_t tiles = (outputs + most - 1) / most;
    const size_t wanted = 2 * at::get_num_threads(), others = std::max<size_t>(tiles * alike_.size(), 1);
    const size_t parts = std::clamp<size_t>((wanted + others - 1) / others, 1, taps.size());
    for (size_t i = 0; i < tiles; ++i)
      for (size_t part = 0; part < parts; ++part) {
        const size_t first = outputs * i / tiles, last = outputs * (i + 1) / tiles;
        units_.push_back({&families, first, static_cast<int>(last - first), taps.size() * part / parts,
                          taps.size() * (part + 1) / parts});
      }
  }

  void run_unit(const Unit& unit) const {
    const std::vector<Tap>& all = (*unit.families)[0]->taps;
    const std::vector<TapRow> rows = rows_of(all);
    const int64_t channel = (*unit.families)[0]->channel / k_.lanes * k_.lanes;
    const float* x = x_.origin() + channel / kBlock * x_.layout.block + channel % kBlock;
    std::vector<int64_t> taps;
    for (const Tap& tap : all) taps.push_back(std::clamp(tap.dx, -x_.layout.border, x_.layout.border) * kBlock);
    std::vector<float> sums(all.size() * unit.rows * k_.lanes), spread(grad_.width * unit.rows * k_.lanes);
    for (int64_t n = 0; n < grad_.batch; ++n)
      for (int64_t y = 0; y < grad_.height; ++y) {
        spread_row(unit, n, y, spread.data());
        for (size_t i = unit.begin; i < unit.end; ++i) {
          const TapRow& row = rows[i];
          const int64_t from = y * stride_ + row.dy;
          if (from < 0 || from >= x_.height) continue;
          k_.group_weight[unit.rows][row.count]({x + n * x_.layout.image + from * x_.layout.row,
                                                 taps.data() + row.first, spread.data(), grad_.width, stride_ * kBlock},
                                                sums.data() + row.first * unit.rows * k_.lanes);
        }
      }
    for (size_t i = unit.begin; i < unit.end; ++i) unpack(unit, rows[i], sums.data());
  }

  // Row y of the gradient as the tiles read it.
  void spread_row(const Unit& unit, int64_t n, int64_t y, float* target) const {
    const float* grad = grad_.origin() + n * grad_.layout.image + y * grad_.layout.row;
    const int64_t padded = (*unit.families)[0]->padded, step = unit.rows * k_.lanes;
    const auto copy = padded == 1 ? spread<1> : padded == 2 ? spread<2> : padded == 4 ? spread<4> : spread<8>;
    for (const WeightFamily* family : *unit.families)
      for (size_t r = 0; r < static_cast<size_t>(unit.rows) && unit.first + r < family->outputs.size(); ++r) {
        const int64_t channel = family->outputs[unit.first + r].channel;
        copy(grad + channel / kBlock * grad_.layout.block + channel % kBlock, grad_.width,
             target + static_cast<int64_t>(r) * k_.lanes + family->channel % k_.lanes, step);
      }
  }

  void unpack(const Unit& unit, const TapRow& row, const float* sums) const {
    for (const WeightFamily* family : *unit.families) {
      const int64_t taps = static_cast<int64_t>(family->taps.size());
      for (size_t r = 0; r < static_cast<size_t>(unit.rows) && unit.first + r < family->outputs.size(); ++r) {
        float* result = family->result + family->outputs[unit.first + r].filter * family->inside * taps;
        for (size_t tap = row.first; tap < row.first + row.count; ++tap) {
          const float* lanes = sums + (tap * unit.rows + r) * k_.lanes + family->channel % k_.lanes;
          for (int64_t c = 0; c < family->inside; ++c) result[c * taps + family->taps[tap].number] = lanes[c];
        }
      }
    }
  }

  const Kernels& k_;
  const Packed &x_, &grad_;
  int64_t stride_;
  std::map<std::vector<int64_t>, Alike> alike_;  // by vector, result, taps
  std::vector<Unit> units_;
};

}  // namespace

void weight_gradient_of_small_groups(const Kernels& k, const std::vector<WeightFamily>& families, const Packed& x,
                                     const Packed& grad, int64_t stride) {
  SmallGroups(k, families, x, grad, stride).run();
}

}  // namespace icconv_mm::cpu
