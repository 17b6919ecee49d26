#include "engine.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace icconv_mm {
namespace {

constexpr int64_t kCacheBytes = 640 * 1024;  // of input that a thread works on at a time
constexpr int64_t kColumns = 80;             // likewise: three rows of one block of channels
constexpr int64_t kMinRows = 4;

struct Area {
  int64_t n, y0, y1, x0, x1;
};

class Engine {
 public:
  Engine(const Kernels& k, const Plan& plan, const float* weight, const Packed& input, int64_t stride,
         const Target& target)
      : k_(k), plan_(plan), weight_(weight), input_(input), stride_(stride), target_(target) {
    for (const Reading& reading : plan.readings) terms_.push_back(terms_of(reading));
  }

  void run() const {
    const int64_t threads = at::get_num_threads(), rows = target_.batch * target_.height;
    // each thread takes some rows of all channels, or some channels of all rows: whichever memory is read less often
    const bool by_rows = input_.size() >= plan_.weight_size;
    const int64_t row_parts = by_rows ? std::clamp<int64_t>(rows / kMinRows, 1, threads) : 1;
    const int64_t channel_parts = std::max<int64_t>(threads / row_parts, 1);
    const std::vector<size_t> cuts = cut_jobs(channel_parts);
    at::parallel_for(0, row_parts * channel_parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t r = i / channel_parts, c = i % channel_parts;
        run_part(rows * r / row_parts, rows * (r + 1) / row_parts, cuts[c], cuts[c + 1]);
      }
    });
  }

 private:
  std::vector<Term> terms_of(const Reading& reading) const {
    std::vector<Term> terms(reading.reads.size());
    for (size_t i = 0; i < terms.size(); ++i) {
      const Read& read = reading.reads[i];
      // a tap that is further away than the map is wide reads the border, wherever it is
      const int64_t dx = std::clamp(read.dx, -input_.border, input_.border);
      const int64_t dy = std::abs(read.dy) < input_.height ? read.dy : 0;  // never read
      terms[i] = {dy * input_.row + dx * kBlock + read.channel / kBlock * input_.block + read.channel % kBlock,
                  reading.units[i]};
    }
    return terms;
  }

  // Jobs in `parts` consecutive shares of the same cost.
  std::vector<size_t> cut_jobs(int64_t parts) const {
    double all = 0, before = 0;
    for (const Job& job : plan_.jobs) all += job.cost;
    std::vector<size_t> cuts(parts + 1, plan_.jobs.size());
    cuts[0] = 0;
    int64_t part = 1;
    for (size_t i = 0; i < plan_.jobs.size(); ++i) {
      while (part < parts && before + plan_.jobs[i].cost / 2 >= all * part / parts) cuts[part++] = i;
      before += plan_.jobs[i].cost;
    }
    return cuts;
  }

  int64_t rows_of_a_block(int64_t columns) const {
    int64_t blocks = 1, reach = 0;
    for (const Reading& reading : plan_.readings) {
      blocks = std::max(blocks, reading.blocks);
      for (size_t i = 0; i + 1 < reading.rows.size(); ++i) reach = std::max(reach, std::abs(reading.rows[i].dy));
    }
    const int64_t bytes = blocks * kBlock * (columns * stride_ + 2 * input_.border) * static_cast<int64_t>(sizeof(float));
    return std::max<int64_t>((kCacheBytes / bytes - 2 * reach) / stride_, kMinRows);
  }

  void run_part(int64_t begin, int64_t end, size_t first, size_t last) const {
    const int64_t chunks = (target_.width + kColumns - 1) / kColumns;
    const int64_t block = rows_of_a_block((target_.width + chunks - 1) / chunks);
    for (int64_t i = begin; i < end;) {
      const int64_t n = i / target_.height, y = i % target_.height;
      const int64_t y1 = std::min({y + block, target_.height, y + end - i});
      for (int64_t chunk = 0; chunk < chunks; ++chunk)
        run_area({n, y, y1, target_.width * chunk / chunks, target_.width * (chunk + 1) / chunks}, first, last);
      i += y1 - y;
    }
  }

  void run_area(const Area& area, size_t first, size_t last) const {
    for (size_t slice = 0; slice < plan_.slices; ++slice)
      for (size_t i = first; i < last; ++i)
        if (slice < plan_.jobs[i].parts.size()) run_job(area, plan_.jobs[i], slice);
  }

  void run_job(const Area& area, const Job& job, size_t slice) const {
    const Reading& reading = plan_.readings[job.parts[slice].reading];
    // rows whose distance is the dilation one after the other: two of the three that they read are the same
    int64_t step = 1;
    if (stride_ == 1 && reading.rows.size() > 2) step = std::max<int64_t>(reading.rows[1].dy - reading.rows[0].dy, 1);
    step = std::min(step, area.y1 - area.y0);
    for (int64_t first = 0; first < step; ++first)
      for (int64_t y = area.y0 + first; y < area.y1; y += step) run_row(area, job, slice, reading, y);
  }

  void run_row(const Area& area, const Job& job, size_t slice, const Reading& reading, int64_t y) const {
    const int64_t in_y = y * stride_;
    size_t begin = 0, end = reading.rows.size() - 1;
    while (begin < end && in_y + reading.rows[begin].dy < 0) ++begin;
    while (end > begin && in_y + reading.rows[end - 1].dy >= input_.height) --end;
    const std::vector<Term>& terms = terms_[job.parts[slice].reading];
    const Term *first = terms.data() + reading.rows[begin].read, *last = terms.data() + reading.rows[end].read;
    const float* weight = weight_ + job.parts[slice].weight + reading.rows[begin].unit * job.width * plan_.lanes;
    const float* in = input_.origin() + area.n * input_.image + in_y * input_.row;
    float* out = target_.data + area.n * target_.n + y * target_.h;
    const bool ends = slice + 1 == job.parts.size();
    const int flags = (slice ? kAccumulate : 0) | (ends && target_.bias ? kBias : 0) | (ends && target_.relu ? kRelu : 0);

    // tiles of two neighbouring widths fill a row exactly
    const int64_t width = area.x1 - area.x0, most = stride_ > 2 ? 1 : k_.pixels[job.width];
    const int64_t tiles = (width + most - 1) / most, wide = width % tiles;
    for (int64_t i = 0, x = area.x0; i < tiles; ++i) {
      const int64_t pixels = width / tiles + (i < wide);
      const Tile tile = job.kind == Job::kOuter ? k_.outer[stride_ == 2][job.width][pixels]
                                                : k_.dot[stride_ == 2][job.width][pixels];
      run_tile(tile, job, in + x * stride_ * kBlock, first, last, weight, out + x * target_.w, pixels, flags);
      x += pixels;
    }
  }

  void run_tile(Tile tile, const Job& job, const float* in, const Term* first, const Term* last, const float* weight,
                float* out, int64_t pixels, int flags) const {
    if (job.neighbours) {
      const int64_t channel = job.outputs[0].channel;
      tile(in, first, last, weight,
           {out + channel * target_.c, target_.w, target_.c, target_.bias ? target_.bias + channel : nullptr,
            static_cast<int64_t>(job.outputs.size()), flags});
      return;
    }
    alignas(64) float results[kMaxPixels * kMaxVectors * kMaxLanes], sums[kMaxPixels * kMaxRows * kMaxLanes];
    const int64_t outputs = static_cast<int64_t>(job.outputs.size());
    if (job.kind == Job::kGroups) {
      tile(in, first, last, weight, {results, 0, 0, nullptr, 0, kRaw});
      const int64_t slots = outputs / job.width;
      k_.sum_lanes(results, job.width * pixels, plan_.lanes / slots, sums);
      for (int64_t i = 0; i < outputs; ++i)
        scatter(job.outputs[i], sums + i / slots * pixels * slots + i % slots, slots, out, pixels, flags);
    } else {
      tile(in, first, last, weight, {results, 1, pixels, nullptr, outputs, 0});
      for (int64_t i = 0; i < outputs; ++i) scatter(job.outputs[i], results + i * pixels, 1, out, pixels, flags);
    }
  }

  void scatter(const Output& output, const float* values, int64_t step, float* out, int64_t pixels, int flags) const {
    if (output.channel < 0) return;
    out += output.channel * target_.c;
    const float bias = flags & kBias ? target_.bias[output.channel] : 0.f;
    for (int64_t p = 0; p < pixels; ++p, out += target_.w) {
      float value = values[p * step] + bias;
      if (flags & kAccumulate) value += *out;
      *out = flags & kRelu && value < 0.f ? 0.f : value;
    }
  }

  const Kernels& k_;
  const Plan& plan_;
  const float* weight_;
  const Packed& input_;
  int64_t stride_;
  Target target_;
  std::vector<std::vector<Term>> terms_;
};

}  // namespace

void run(const Kernels& k, const Plan& plan, const float* weight, const Packed& input, int64_t stride,
         const Target& target) {
  if (target.batch * target.height * target.width > 0) Engine(k, plan, weight, input, stride, target).run();
}

}  // namespace icconv_mm
