// See engine.h.
#include "engine.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <type_traits>

#include "views.h"

namespace icconv_mm::cpu {
namespace {

#include "../simd/write.inc"

constexpr int64_t kCacheBytes = 384 * 1024;  // of input that a thread works on at a time, beside its output
constexpr int64_t kColumns = 80;             // likewise: three rows of one block of channels
constexpr int64_t kMinRows = 4;
constexpr int64_t kStripBytes = 768 * 1024;  // of a strip, unless one block of rows and its surroundings need more

// How threads share the work: each takes some rows of all channels, or some channels of all rows, whichever memory is
// read less often.
struct Shares {
  int64_t rows, channels;

  static Shares of(const Plan& plan, int64_t input_size, const Target& target) {
    const int64_t threads = at::get_num_threads();
    const bool by_rows = input_size >= plan.weight_size;
    const int64_t rows = by_rows ? std::clamp<int64_t>(target.batch * target.height / kMinRows, 1, threads) : 1;
    return {rows, std::max<int64_t>(threads / rows, 1)};
  }
};

// How far above and below a pixel the rows of a map of this height lie that a plan reads.
struct Reach {
  int64_t above = 0, below = 0;

  Reach(const Plan& plan, int64_t height) {
    for (const Reading& reading : plan.readings)
      for (size_t i = 0; i + 1 < reading.rows.size(); ++i) {
        above = std::max(above, std::min(-reading.rows[i].dy, height));
        below = std::max(below, std::min(reading.rows[i].dy, height));
      }
  }
};

// The target in chunks of columns and blocks of rows whose input fits the cache.
struct Blocking {
  int64_t chunks, columns, rows;  // columns: of the widest chunk

  Blocking(const Plan& plan, const Reach& reach, int64_t border, int64_t stride, int64_t width)
      : chunks((width + kColumns - 1) / kColumns), columns((width + chunks - 1) / chunks) {
    int64_t blocks = 1;
    for (const Reading& reading : plan.readings) blocks = std::max(blocks, reading.blocks);
    const int64_t bytes = blocks * kBlock * (columns * stride + 2 * border) * static_cast<int64_t>(sizeof(float));
    rows = std::max<int64_t>((kCacheBytes / bytes - reach.above - reach.below) / stride, kMinRows);
  }
};

struct Area {
  int64_t n, y0, y1, x0, x1;
};

class Engine {
 public:
  // `layout` is that of the views, `height` that of the input.
  Engine(const Kernels& k, const Plan& plan, const float* weight, const Layout& layout, int64_t height, int64_t stride,
         const Target& target, const Reach& reach, const Blocking& blocking)
      : k_(k), plan_(plan), weight_(weight), layout_(layout), height_(height), stride_(stride), target_(target),
        reach_(reach), blocking_(blocking) {
    for (const Reading& reading : plan.readings) terms_.push_back(terms_of(reading));
  }

  // `make_view(i)` is where share number i finds the input.
  template <typename MakeView>
  void run(const Shares& shares, const MakeView& make_view) const {
    const int64_t rows = target_.batch * target_.height;
    const std::vector<size_t> cuts = cut_jobs(shares.channels);
    at::parallel_for(0, shares.rows * shares.channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t r = i / shares.channels, c = i % shares.channels;
        auto input = make_view(i);
        run_share(rows * r / shares.rows, rows * (r + 1) / shares.rows, cuts[c], cuts[c + 1], input);
      }
    });
  }

 private:
  std::vector<Term> terms_of(const Reading& reading) const {
    std::vector<Term> terms(reading.reads.size());
    for (size_t i = 0; i < terms.size(); ++i) {
      const Read& read = reading.reads[i];
      // a tap that is further away than the map is wide reads the border, wherever it is
      const int64_t dx = std::clamp(read.dx, -layout_.border, layout_.border);
      const int64_t dy = std::abs(read.dy) < height_ ? read.dy : 0;  // never read
      terms[i] = {dy * layout_.row + dx * kBlock + read.channel / kBlock * layout_.block + read.channel % kBlock,
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

  template <typename Input>
  void run_share(int64_t begin, int64_t end, size_t first, size_t last, Input& input) const {
    for (int64_t i = begin; i < end;) {  // image by image
      const int64_t n = i / target_.height, y = i % target_.height, y1 = std::min(target_.height, y + end - i);
      for (int64_t chunk = 0; chunk < blocking_.chunks; ++chunk)
        run_chunk({n, y, y1, target_.width * chunk / blocking_.chunks, target_.width * (chunk + 1) / blocking_.chunks},
                  first, last, input);
      i += y1 - y;
    }
  }

  template <typename Input>
  void run_chunk(const Area& chunk, size_t first, size_t last, Input& input) const {
    for (int64_t y = chunk.y0; y < chunk.y1; y += blocking_.rows) {
      const Area area{chunk.n, y, std::min(y + blocking_.rows, chunk.y1), chunk.x0, chunk.x1};
      const int64_t above = std::max<int64_t>(y * stride_ - reach_.above, 0);
      const int64_t below = std::min((area.y1 - 1) * stride_ + reach_.below + 1, height_);
      const View view = input.rows(chunk.n, above, below, chunk.x0 * stride_);
      for (size_t slice = 0; slice < plan_.slices; ++slice)
        for (size_t i = first; i < last; ++i)
          if (slice < plan_.jobs[i].parts.size()) run_job(area, view, plan_.jobs[i], slice);
    }
  }

  void run_job(const Area& area, const View& view, const Job& job, size_t slice) const {
    const Reading& reading = plan_.readings[job.parts[slice].reading];
    // rows whose distance is the dilation one after the other: two of the three that they read are the same
    int64_t step = 1;
    if (stride_ == 1 && reading.rows.size() > 2) step = std::max<int64_t>(reading.rows[1].dy - reading.rows[0].dy, 1);
    step = std::min(step, area.y1 - area.y0);
    for (int64_t first = 0; first < step; ++first)
      for (int64_t y = area.y0 + first; y < area.y1; y += step) run_row(area, view, job, slice, reading, y);
  }

  void run_row(const Area& area, const View& view, const Job& job, size_t slice, const Reading& reading,
               int64_t y) const {
    const int64_t in_y = y * stride_;
    size_t begin = 0, end = reading.rows.size() - 1;
    while (begin < end && in_y + reading.rows[begin].dy < 0) ++begin;
    while (end > begin && in_y + reading.rows[end - 1].dy >= height_) --end;
    const std::vector<Term>& terms = terms_[job.parts[slice].reading];
    const Term *first = terms.data() + reading.rows[begin].read, *last = terms.data() + reading.rows[end].read;
    const float* weight = weight_ + job.parts[slice].weight + reading.rows[begin].unit * job.width * plan_.lanes;
    const float* in = view.data + (in_y - view.y) * layout_.row;
    float* out = target_.data + area.n * target_.n + y * target_.h;
    const bool ends = slice + 1 == job.parts.size();
    const int flags =
        (slice ? kAccumulate : 0) | (ends && target_.bias ? kBias : 0) | (ends && target_.relu ? kRelu : 0);

    const Tiles tiles = tiles_of(job, reading);
    // tiles of two neighbouring widths fill a row exactly
    const int64_t width = area.x1 - area.x0, count = (width + tiles.most - 1) / tiles.most, wide = width % count;
    for (int64_t i = 0, x = area.x0; i < count; ++i) {
      const int64_t pixels = width / count + (i < wide);
      const Tile tile = tiles.sliding && tiles.sliding[pixels] ? tiles.sliding[pixels] : tiles.plain[pixels];
      run_tile(tile, job, in + (x * stride_ - view.x) * kBlock, first, last, weight, out + x * target_.w, pixels,
               flags);
      x += pixels;
    }
  }

  struct Tiles {
    int64_t most;
    const Tile *plain, *sliding;  // by pixels
  };

  Tiles tiles_of(const Job& job, const Reading& reading) const {
    const int64_t most = stride_ > 2 ? 1 : k_.pixels[job.width];
    if (job.kind == Job::kOuter) return {most, k_.outer[stride_ == 2][job.width], nullptr};
    Tiles tiles{most, k_.dot[stride_ == 2][job.width], nullptr};
    if (stride_ != 1 || job.width > 1 || reading.slide < 0) return tiles;
    const Slide slide = kSlides[reading.slide];
    const int64_t widest = k_.slide_pixels[reading.slide];
    // where the border is narrower, taps lie where terms_of() put them
    if (widest > 0 && slide.taps / 2 * slide.dilation <= layout_.border)
      tiles.most = widest, tiles.sliding = k_.sliding[reading.slide];
    return tiles;
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
        scatter(job.outputs[i], sums + (i % slots * job.width + i / slots) * pixels, out, pixels, flags);
    } else {
      tile(in, first, last, weight, {results, 1, pixels, nullptr, outputs, 0});
      for (int64_t i = 0; i < outputs; ++i) scatter(job.outputs[i], results + i * pixels, out, pixels, flags);
    }
  }

  void scatter(const Output& output, const float* values, float* out, int64_t pixels, int flags) const {
    if (output.channel < 0) return;
    const float bias = flags & kBias ? target_.bias[output.channel] : 0.f;
    write(values, pixels, bias, out + output.channel * target_.c, target_.w, flags);
  }

  const Kernels& k_;
  const Plan& plan_;
  const float* weight_;
  const Layout layout_;
  const int64_t height_, stride_;
  const Target target_;
  const Reach reach_;
  const Blocking blocking_;
  std::vector<std::vector<Term>> terms_;
};

// A strip holds what a block of rows reads, and as much again as moves when it is full: a row is moved once at most for
// each that is packed.
Layout layout_of_strip(const Source& source, const Reach& reach, const Blocking& blocking, int64_t stride) {
  const int64_t columns = (blocking.columns - 1) * stride + 1;
  const int64_t bytes = Layout::of(source, 1, columns).image * static_cast<int64_t>(sizeof(float));
  const int64_t needed = (blocking.rows - 1) * stride + 1 + 2 * (reach.above + reach.below);
  return Layout::of(source, std::min(std::max(kStripBytes / bytes, needed), source.height()), columns);
}

}  // namespace

Target Target::of(at::Tensor& out, const at::Tensor& bias, bool relu) {
  return {out.mutable_data_ptr<float>(),
          out.size(0),
          out.size(2),
          out.size(3),
          out.stride(0),
          out.stride(1),
          out.stride(2),
          out.stride(3),
          bias.defined() ? bias.const_data_ptr<float>() : nullptr,
          relu};
}

void run(const Kernels& k, const Plan& plan, const float* weight, const Packed& input, int64_t stride,
         const Target& target) {
  if (target.is_empty()) return;
  const Reach reach(plan, input.height);
  const Blocking blocking(plan, reach, input.layout.border, stride, target.width);
  Engine(k, plan, weight, input.layout, input.height, stride, target, reach, blocking)
      .run(Shares::of(plan, input.batch * input.layout.image, target), [&](int64_t) { return Whole{input}; });
}

void run(const Kernels& k, const Plan& plan, const float* weight, const Source& input, int64_t stride,
         const Target& target) {
  if (target.is_empty()) return;
  const int64_t size = input.batch() * Layout::of(input, input.height(), input.width()).image;
  const Shares shares = Shares::of(plan, size, target);
  const Reach reach(plan, input.height());
  // what threads read of each other's rows they would both pack
  const int64_t own = target.batch * target.height / shares.rows * stride, others = reach.above + reach.below;
  if (shares.channels > 1 || own < 2 * others) return run(k, plan, weight, pack(k, input), stride, target);
  const Blocking blocking(plan, reach, input.border, stride, target.width);
  const Layout layout = layout_of_strip(input, reach, blocking, stride);
  const std::shared_ptr<float> memory = borrow(shares.rows * layout.image);
  Engine(k, plan, weight, layout, input.height(), stride, target, reach, blocking).run(shares, [&](int64_t i) {
    return Strip(k, input, layout, memory.get() + i * layout.image);
  });
}

}  // namespace icconv_mm::cpu
