// See plan.h.
#include "plan.h"

#include "../../common/program.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>

namespace icconv_mm::inception_conv::kn2row {
namespace {

constexpr int kLongSegment =
    2 * kVector;  // channels side by side for which columns that only fill vectors are worth it

int floor_div(int64_t value, int64_t by) {
  return static_cast<int>(value >= 0 ? value / by : -((by - 1 - value) / by));
}

struct Dilations {
  std::vector<int64_t> h, w;  // of every output channel
};

Dilations expand(Pattern pattern) {
  Dilations all;
  for (size_t i = 0; i < pattern.size(); i += 3)
    for (int64_t n = 0; n < pattern[i]; ++n) all.h.push_back(pattern[i + 1]), all.w.push_back(pattern[i + 2]);
  return all;
}

// Where one tap of a channel reads.
struct Reach {
  int row, column, dy, dx;  // parity, and shift in pixels of its plane
  bool operator==(const Reach& other) const {
    return row == other.row && column == other.column && dy == other.dy && dx == other.dx;
  }
};

Reach reach(int64_t dilation_h, int64_t dilation_w, int tap, int64_t stride) {
  const int64_t down = (tap / 3 - 1) * dilation_h, right = (tap % 3 - 1) * dilation_w;
  const int dy = floor_div(down, stride), dx = floor_div(right, stride);
  return {static_cast<int>(down - dy * stride), static_cast<int>(right - dx * stride), dy, dx};
}

// Columns of one plane, a list per group: taps in order, within a tap the channels in order.
std::vector<std::vector<Column>> place_columns(const Geometry& g, const Dilations& dilations, const Range& without,
                                               const PlanePlan& plane) {
  std::vector<std::vector<Column>> groups(g.groups);
  for (int64_t group = 0; group < g.groups; ++group)
    for (int tap = 0; tap < kTaps; ++tap) {
      const int64_t end = (group + 1) * g.group_out;
      const auto at = [&](int64_t c) { return reach(dilations.h[c], dilations.w[c], tap, g.stride); };
      const auto belongs = [&](int64_t c) {
        return (c < without.begin || c >= without.end) && at(c).row == plane.row && at(c).column == plane.column;
      };
      for (int64_t c = group * g.group_out, stop; c < end; c = stop) {
        stop = c + 1;
        if (!belongs(c)) continue;
        while (stop < end && belongs(stop) && at(stop) == at(c)) ++stop;
        auto& columns = groups[group];
        if (stop - c >= kLongSegment)
          while (static_cast<int64_t>(columns.size()) % kVector != c % kVector) columns.push_back({-1, 0, 0, 0});
        for (int64_t i = c; i < stop; ++i) columns.push_back({static_cast<int>(i), tap, at(c).dy, at(c).dx});
      }
    }
  return groups;
}

bool alike_columns(const Column* c) {
  if (c->channel < 0 || c->channel % kVector != 0) return false;
  for (int e = 1; e < kVector; ++e)
    if (c[e].channel != c->channel + e || c[e].tap != c->tap || c[e].dy != c->dy || c[e].dx != c->dx) return false;
  return true;
}

bool alike_sources(const std::vector<Source>& sources, int64_t channels, int64_t first) {
  if (first + kVector > channels) return false;
  for (int tap = 0; tap < kTaps; ++tap) {
    const Source* s = &sources[tap * channels + first];
    if (s->plane >= 0 && s->column % kVector != 0) return false;
    for (int e = 1; e < kVector; ++e)
      if (s[e].plane != s->plane || s[e].dy != s->dy || s[e].dx != s->dx ||
          (s->plane >= 0 && s[e].column != s->column + e))
        return false;
  }
  return true;
}

std::atomic<int64_t> limit{int64_t{256} << 20};

}  // namespace

std::string refusal(const Geometry& g, Pattern pattern) {
  const int64_t dilation = std::max(max_dilation(pattern, 0), max_dilation(pattern, 1));
  if (g.stride > 2) return "kn2row takes strides 1 and 2, got " + std::to_string(g.stride);
  if (dilation >= 1 << 24) return "kn2row takes dilations below 2^24, got " + std::to_string(dilation);
  if (std::max(g.height * g.width, kTaps * g.out_channels * std::max<int64_t>(g.group_in, 16)) >= int64_t{1} << 31)
    return "kn2row takes fewer than 2^31 pixels of an image and weights";
  return {};
}

std::vector<int> make_plan(const Geometry& g, Pattern pattern, const Range& without) {
  const Dilations dilations = expand(pattern);
  Plan head{};
  std::vector<Source> sources(kTaps * g.out_channels, Source{-1, 0, 0, 0});
  std::vector<Column> columns;
  for (int row = 0; row < g.stride; ++row)
    for (int column = 0; column < g.stride; ++column) {
      PlanePlan plane{row, column, 0, static_cast<int>(columns.size())};
      auto groups = place_columns(g, dilations, without, plane);
      size_t most = 0;
      for (const auto& each : groups) most = std::max(most, each.size());
      if (most == 0) continue;
      plane.columns = static_cast<int>((most + kVector - 1) / kVector * kVector);
      for (int64_t group = 0; group < g.groups; ++group) {
        groups[group].resize(plane.columns, Column{-1, 0, 0, 0});
        for (int i = 0; i < plane.columns; ++i) {
          const Column& c = groups[group][i];
          if (c.channel < 0) continue;
          sources[c.tap * g.out_channels + c.channel] =
              Source{head.planes, static_cast<int>(group) * plane.columns + i, c.dy, c.dx};
          head.least_dy = std::min(head.least_dy, c.dy), head.most_dy = std::max(head.most_dy, c.dy);
        }
        columns.insert(columns.end(), groups[group].begin(), groups[group].end());
      }
      head.plane[head.planes++] = plane;
    }
  head.total_columns = static_cast<int>(columns.size());
  std::vector<int> alike, alike_by_column;
  for (int64_t first = 0; first < g.out_channels; first += kVector)
    alike.push_back(alike_sources(sources, g.out_channels, first));
  for (size_t first = 0; first < columns.size(); first += kVector)
    alike_by_column.push_back(alike_columns(&columns[first]));
  std::vector<int> numbers(sizeof(Plan) / sizeof(int));
  head.sources = append(numbers, sources), head.columns = append(numbers, columns);
  head.alike_channels = append(numbers, alike), head.alike_columns = append(numbers, alike_by_column);
  std::memcpy(numbers.data(), &head, sizeof(Plan));
  return numbers;
}

std::vector<Chunk> cut(const Geometry& g, int64_t bytes_per_pixel, int64_t above, int64_t below, bool one_image) {
  const int64_t row_bytes = std::max<int64_t>(1, g.out_width * bytes_per_pixel);
  const int64_t rows = limit / row_bytes;
  const int64_t images = one_image ? std::min<int64_t>(1, rows / g.out_height) : rows / g.out_height;
  std::vector<Chunk> chunks;
  if (images >= 1) {
    for (int64_t image = 0; image < g.batch; image += images)
      chunks.push_back({image, std::min(images, g.batch - image), 0, g.out_height, 0, g.out_height});
    return chunks;
  }
  above = std::min(above, g.out_height), below = std::min(below, g.out_height);
  // at least as many rows as lie around them, or most products would be made several times
  const int64_t step = std::max({int64_t{1}, above + below, rows - above - below});
  for (int64_t image = 0; image < g.batch; ++image)
    for (int64_t row = 0; row < g.out_height; row += step) {
      const int64_t end = std::min(row + step, g.out_height);
      const int64_t first = std::max<int64_t>(0, row - above), last = std::min(g.out_height, end + below);
      chunks.push_back({image, 1, row, end - row, first, last - first});
    }
  return chunks;
}

int64_t workspace_limit() { return limit; }

int64_t set_workspace_limit(int64_t bytes) {
  TORCH_CHECK(bytes > 0, "set_kn2row_workspace: expected a positive number of bytes, got ", bytes);
  return limit.exchange(bytes);
}

TORCH_LIBRARY_FRAGMENT(icconv_mm, m) { m.def("set_kn2row_workspace(int bytes) -> int", set_workspace_limit); }

}  // namespace icconv_mm::inception_conv::kn2row
