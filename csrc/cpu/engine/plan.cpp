// See plan.h.
#include "plan.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "../../common/tensors.h"

namespace icconv_mm::cpu {
namespace {

constexpr int64_t kSliceBlocks = 2;  // of input channels before the sums go to memory: a tile's weights stay in cache

struct Choice {
  double cost = 0;
  int width = 0;  // rows of a dot tile, or minus the vectors of an outer-product tile
};

// The cheapest cover of n outputs by tiles; by dynamic programming, as 3 + 2 is cheaper than 4 + 1.
std::vector<int> cover(const Kernels& k, int64_t n, bool dot, bool outer) {
  std::vector<Choice> best(n + 1);
  for (int64_t m = 1; m <= n; ++m) {
    Choice& b = best[m];
    b.cost = 1e30;
    for (int r = 1; dot && r <= kMaxRows && r <= m; ++r)
      if (k.pixels[r] && best[m - r].cost + r * k.costs.dot[r] < b.cost) b = {best[m - r].cost + r * k.costs.dot[r], r};
    for (int v = 1; outer && v <= kMaxVectors; ++v) {
      const double cost = best[std::max<int64_t>(m - v * k.lanes, 0)].cost + v * k.lanes * k.costs.outer[v];
      if (cost < b.cost) b = {cost, -v};
    }
  }
  std::vector<int> widths;
  for (int64_t m = n; m > 0;) {
    const int width = best[m].width;
    widths.push_back(width);
    m = std::max<int64_t>(m - (width > 0 ? width : -width * k.lanes), 0);
  }
  // long tiles first; the short vector, if any, last
  std::sort(widths.begin(), widths.end(),
            [](int a, int b) { return (a < 0) != (b < 0) ? (a > b) : std::abs(a) > std::abs(b); });
  return widths;
}

std::vector<Read> cut_at_blocks(const std::vector<Read>& reads) {
  std::vector<Read> cut;
  for (Read read : reads)
    for (int64_t left = read.count; left > 0; left -= read.count, read.channel += read.count) {
      read.count = std::min(left, kBlock - read.channel % kBlock);
      cut.push_back(read);
    }
  return cut;
}

// Which of kSlides the reads are, or -1. Those of one row and the same channels must be neighbours.
int slide_of(const std::vector<Read>& reads) {
  const auto together = [](const Read& a, const Read& b) {
    return a.dy == b.dy && a.channel == b.channel && a.count == b.count;
  };
  size_t taps = 1;
  while (taps < reads.size() && together(reads[taps], reads[0])) ++taps;
  if (taps < 2 || reads.size() % taps != 0) return -1;
  const int64_t dilation = reads[1].dx - reads[0].dx, middle = static_cast<int64_t>(taps / 2);
  for (size_t i = 0; i < reads.size(); ++i) {
    const int64_t dx = (static_cast<int64_t>(i % taps) - middle) * dilation;
    if (!together(reads[i], reads[i / taps * taps]) || reads[i].dx != dx) return -1;
  }
  for (int i = 0; i < kSlideCount; ++i)
    if (kSlides[i].taps == static_cast<int>(taps) && kSlides[i].dilation == dilation) return i;
  return -1;
}

Reading make_reading(std::vector<Read> reads, int64_t unit) {
  std::stable_sort(reads.begin(), reads.end(), [](const Read& a, const Read& b) {
    return a.dy != b.dy ? a.dy < b.dy : a.channel / kBlock < b.channel / kBlock;
  });
  Reading reading;
  int64_t units = 0, lowest = 1 << 30, highest = -1;
  for (const Read& read : reads) {
    if (reading.rows.empty() || reading.rows.back().dy != read.dy)
      reading.rows.push_back({read.dy, static_cast<int64_t>(reading.units.size()), units});
    reading.units.push_back((read.count + unit - 1) / unit);
    units += reading.units.back();
    lowest = std::min(lowest, read.channel / kBlock), highest = std::max(highest, read.channel / kBlock);
  }
  reading.rows.push_back({0, static_cast<int64_t>(reads.size()), units});
  reading.blocks = highest < 0 ? 0 : highest - lowest + 1;
  reading.slide = slide_of(reads);
  reading.reads = std::move(reads);
  return reading;
}

bool follow_each_other(const std::vector<Output>& outputs) {
  for (size_t i = 1; i < outputs.size(); ++i)
    if (outputs[i].channel != outputs[0].channel + static_cast<int64_t>(i)) return false;
  return true;
}

}  // namespace

std::vector<Job::Part> Planner::parts_of(const Reads& reads, bool dot) {
  const std::vector<Read> cut = cut_at_blocks(reads.list);
  int64_t lowest = cut.empty() ? 0 : cut[0].channel / kBlock;
  for (const Read& read : cut) lowest = std::min(lowest, read.channel / kBlock);
  std::map<int64_t, std::vector<Read>> slices;
  for (const Read& read : cut) slices[(read.channel / kBlock - lowest) / kSliceBlocks].push_back(read);
  if (slices.empty()) slices[0];  // outputs that read nothing still become zero
  std::vector<Job::Part> parts;
  for (auto& slice : slices) {
    parts.push_back({static_cast<int64_t>(plan_.readings.size()), reads.level, 0});
    plan_.readings.push_back(make_reading(std::move(slice.second), dot ? k_.lanes : 1));
  }
  return parts;
}

void Planner::add_job(Job job) {
  const bool outer = job.kind == Job::kOuter;
  const double channels = job.width * (outer ? k_.lanes * k_.costs.outer[job.width] : k_.costs.dot[job.width]);
  for (const Job::Part& part : job.parts)
    job.cost += channels * plan_.readings[part.reading].rows.back().unit * (outer ? 1 : k_.lanes);
  plan_.slices = std::max(plan_.slices, job.parts.size());
  plan_.jobs.push_back(std::move(job));
}

void Planner::add(const std::vector<Reads>& reads, const std::vector<Output>& outputs, bool outer_only) {
  std::vector<Job::Part> dot, outer;
  size_t done = 0;
  for (int width : cover(k_, static_cast<int64_t>(outputs.size()), !outer_only, true)) {
    std::vector<Job::Part>& parts = width > 0 ? dot : outer;
    if (parts.empty())
      for (const Reads& level : reads)
        for (const Job::Part& part : parts_of(level, width > 0)) parts.push_back(part);
    const size_t count = std::min<size_t>(width > 0 ? width : -width * k_.lanes, outputs.size() - done);
    Job job;
    job.kind = width > 0 ? Job::kDot : Job::kOuter;
    job.width = std::abs(width);
    job.parts = parts;
    job.outputs.assign(outputs.begin() + done, outputs.begin() + done + count);
    job.neighbours = follow_each_other(job.outputs);
    add_job(std::move(job));
    done += count;
  }
}

void Planner::add_groups(const Reads& reads, const std::vector<std::vector<Output>>& outputs) {
  size_t rows = 0, done = 0;
  for (const auto& slot : outputs) rows = std::max(rows, slot.size());
  if (rows == 0) return;
  const std::vector<Job::Part> parts = parts_of(reads, true);
  for (int width : cover(k_, static_cast<int64_t>(rows), true, false)) {
    Job job;
    job.kind = Job::kGroups;
    job.width = width;
    job.parts = parts;
    job.neighbours = false;
    for (size_t r = done; r < done + width; ++r)
      for (const auto& slot : outputs) job.outputs.push_back(r < slot.size() ? slot[r] : Output{-1, -1});
    add_job(std::move(job));
    done += width;
  }
}

Plan Planner::finish() {
  for (size_t slice = 0; slice < plan_.slices; ++slice)  // in the order of their use
    for (Job& job : plan_.jobs)
      if (slice < job.parts.size()) {
        job.parts[slice].weight = plan_.weight_size;
        const int64_t units = plan_.readings[job.parts[slice].reading].rows.back().unit;
        plan_.weight_size += units * job.width * plan_.lanes;
      }
  return std::move(plan_);
}

Filters Filters::of(const at::Tensor& weight, const Channels& channels) {
  Filters filters{&weight, channels, weight.stride(0), weight.stride(1), {}};
  for (int64_t y = 0; y < weight.size(2); ++y)
    for (int64_t x = 0; x < weight.size(3); ++x) filters.tap.push_back(y * weight.stride(2) + x * weight.stride(3));
  return filters;
}

std::vector<Tap> taps_of(int64_t height, int64_t width, int64_t dilation_h, int64_t dilation_w) {
  std::vector<Tap> taps;
  taps.reserve(height * width);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      taps.push_back({(y - height / 2) * dilation_h, (x - width / 2) * dilation_w, y * width + x});
  return taps;
}

void plan_groups(Planner& planner, const Kernels& k, const Channels& channels, const std::vector<Tap>& taps,
                 const std::vector<std::vector<Output>>& outputs, int64_t level) {
  const auto reads = [&](int64_t channel, int64_t count) {
    Reads found{level, {}};
    for (const Tap& tap : taps) found.list.push_back({tap.dy, tap.dx, channel, count, tap.number});
    return found;
  };
  if (channels.padded >= k.lanes) {
    for (int64_t group = 0; group < channels.groups; ++group)
      if (!outputs[group].empty()) planner.add({reads(group * channels.padded, channels.inside)}, outputs[group]);
    return;
  }
  const int64_t slots = k.lanes / channels.padded;
  for (int64_t first = 0; first < channels.groups; first += slots) {
    std::vector<std::vector<Output>> of_slots(slots);
    for (int64_t j = 0; j < slots && first + j < channels.groups; ++j) of_slots[j] = outputs[first + j];
    planner.add_groups(reads(first * channels.padded, k.lanes), of_slots);
  }
}

namespace {

// Writes the packed weights of one part of a job, in the order in which its tile reads them.
template <typename T>
struct Filling {
  const Plan& plan;
  const Job& job;
  const Filters& filters;
  const T* data;

  float at(int64_t filter, int64_t packed_channel, int64_t tap) const {
    const Channels& c = filters.channels;
    int64_t inside = c.groups == 1 ? packed_channel : packed_channel % c.padded;
    if (filter < 0 || inside >= c.inside) return 0.f;
    if (filters.group_in) {
      inside -= filters.first;
      if (filter / filters.group_in != inside / filters.group_out) return 0.f;
      filter %= filters.group_in;
    }
    const T* place = data + filter * filters.filter + filters.tap[tap];
    return c.pairs ? pair(place + 2 * inside * filters.channel) : static_cast<float>(place[inside * filters.channel]);
  }

  // Two neighbouring channels in the bits of one float.
  float pair(const T* place) const {
    float bits = 0;
    if constexpr (sizeof(T) == 2) {
      const T both[] = {place[0], place[filters.channel]};
      std::memcpy(&bits, both, sizeof bits);
    }
    return bits;
  }

  void dot(const Read& read, int64_t units, float* target) const {
    for (int64_t u = 0; u < units; ++u)
      for (int r = 0; r < job.width; ++r)
        for (int l = 0; l < plan.lanes; ++l)
          *target++ = at(job.outputs[r].filter, read.channel + u * plan.lanes + l, read.tap);
  }

  void groups(const Read& read, float* target) const {
    const int64_t slots = plan.lanes / filters.channels.padded;
    for (int r = 0; r < job.width; ++r)
      for (int l = 0; l < plan.lanes; ++l)
        *target++ = at(job.outputs[r * slots + l / filters.channels.padded].filter, read.channel + l, read.tap);
  }

  void outer(const Read& read, float* target) const {
    const int64_t width = job.width * plan.lanes, outputs = static_cast<int64_t>(job.outputs.size());
    for (int64_t i = 0; i < width; ++i)
      for (int64_t c = 0; c < read.count; ++c)
        target[c * width + i] = i < outputs ? at(job.outputs[i].filter, read.channel + c, read.tap) : 0.f;
  }

  void fill(const Reading& reading, float* target) const {
    for (size_t i = 0; i < reading.reads.size(); ++i) {
      if (job.kind == Job::kDot) dot(reading.reads[i], reading.units[i], target);
      if (job.kind == Job::kGroups) groups(reading.reads[i], target);
      if (job.kind == Job::kOuter) outer(reading.reads[i], target);
      target += reading.units[i] * job.width * plan.lanes;
    }
  }
};

template <typename T>
void fill_all(const Plan& plan, const std::vector<Filters>& levels, float* packed) {
  at::parallel_for(0, static_cast<int64_t>(plan.jobs.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (const Job::Part& part : plan.jobs[i].parts) {
        const Filters& filters = levels[part.level];
        const Filling<T> filling{plan, plan.jobs[i], filters, filters.tensor->const_data_ptr<T>()};
        filling.fill(plan.readings[part.reading], packed + part.weight);
      }
  });
}

}  // namespace

at::Tensor pack_weights(const Plan& plan, const std::vector<Filters>& levels, const at::TensorOptions& options) {
  at::Tensor packed = empty({plan.weight_size}, options.dtype(at::kFloat));
  if (levels[0].tensor->scalar_type() == at::kBFloat16)
    fill_all<at::BFloat16>(plan, levels, packed.mutable_data_ptr<float>());
  else
    fill_all<float>(plan, levels, packed.mutable_data_ptr<float>());
  return packed;
}

}  // namespace icconv_mm::cpu
