// See shares.h.
#include "shares.h"

#include <array>
#include <map>

namespace icconv_mm::cuda {

std::vector<Share> make_shares(const Geometry32& p, Pattern pattern) {
  std::vector<Share> shares;
  std::map<std::array<int, 3>, size_t> known;
  for (const Run& run : cut_runs(pattern, p.group_out)) {
    const int group = static_cast<int>(run.group), dh = static_cast<int>(run.dilation_h),
              dw = static_cast<int>(run.dilation_w);
    const auto [place, is_new] = known.try_emplace({group, dh, dw}, shares.size());
    if (is_new) shares.push_back({group, dh, dw, {}});
    for (int64_t channel = run.begin; channel < run.end; ++channel)
      shares[place->second].channels.push_back(static_cast<int>(channel));
  }
  return shares;
}

const Table& channel_table(const Geometry32& p, Pattern pattern) {
  return cached_table(TableKind::kChannels, {p.groups}, pattern, [&] {
    std::vector<int> numbers(3 * static_cast<size_t>(p.out_channels));
    for (const Share& share : make_shares(p, pattern))
      for (int channel : share.channels) {
        numbers[3 * channel] = share.dilation_h;
        numbers[3 * channel + 1] = share.dilation_w;
        numbers[3 * channel + 2] = share.group;
      }
    return numbers;
  });
}

}  // namespace icconv_mm::cuda
