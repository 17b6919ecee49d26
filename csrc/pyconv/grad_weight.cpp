// See grad_weight.h.
#include "grad_weight.h"

#include "../common/program.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

namespace icconv_mm::pyconv {

std::vector<int> make_weight_program(const Geometry& g) {
  WeightProgram head{};
  std::vector<Job> jobs;
  std::vector<Tap> taps;
  for (const Level& level : g.levels) {
    head.reach_h = std::max(head.reach_h, static_cast<int>(level.height / 2 * g.dilation));
    head.reach_w = std::max(head.reach_w, static_cast<int>(level.width / 2 * g.dilation));
  }
  for (int row = 0; row < g.out_channels; row += kRowChannels)
    for (int column = 0; column < g.in_channels; column += kColumnChannels) {
      std::set<std::pair<int, int>> wanted;
      for (const Level& level : g.levels) {
        if (!meet(level, g.in_channels, column, kColumnChannels, row, kRowChannels)) continue;
        const int h = static_cast<int>(level.height / 2), w = static_cast<int>(level.width / 2);
        for (int dy = -h; dy <= h; ++dy)
          for (int dx = -w; dx <= w; ++dx) wanted.insert({dy, dx});
      }
      const int count = static_cast<int>(wanted.size()), parts = (count + kTapsOfJob - 1) / kTapsOfJob;
      for (int part = 0; part < parts; ++part) {  // as many for each as for the others, or one more
        const int begin = count * part / parts, end = count * (part + 1) / parts;
        jobs.push_back({row, column, static_cast<int>(taps.size()) + begin, end - begin});
      }
      for (const auto& [dy, dx] : wanted) taps.push_back({dy, dx});
    }
  head.jobs = static_cast<int>(jobs.size());
  std::vector<int> numbers(sizeof(WeightProgram) / sizeof(int));
  head.job_at = append(numbers, jobs), head.tap_at = append(numbers, taps);
  std::memcpy(numbers.data(), &head, sizeof(WeightProgram));
  return numbers;
}

Places places_of(const Geometry& g) {
  Places places{};
  for (const Level& level : g.levels) {
    const int64_t group_in = g.in_channels / level.groups;
    places.levels[places.count++] = {static_cast<int>(level.first),
                                     static_cast<int>(level.outputs),
                                     static_cast<int>(group_in),
                                     static_cast<int>(level.outputs / level.groups),
                                     static_cast<int>(level.height),
                                     static_cast<int>(level.width),
                                     places.all};
    places.all += level.outputs * group_in * level.height * level.width;
  }
  return places;
}

}  // namespace icconv_mm::pyconv
