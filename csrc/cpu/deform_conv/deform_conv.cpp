// Deformable convolution on the CPU. Each output pixel samples the input at its own places; the samples of a strip of
// pixels are packed as one image with a row for each tap, over which the engine runs a convolution of as many rows.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "../../common/tensors.h"
#include "../engine/engine.h"
#include "../engine/prepared.h"
#include "../engine/weight_grad.h"
#include "../operators.h"

namespace icconv_mm::cpu {
namespace {

using at::Tensor;

Tensor zeros(c10::IntArrayRef size, const at::TensorOptions& options) { return empty(size, options).zero_(); }

constexpr int64_t kStripBytes = 640 * 1024;        // of samples, which stay in a thread's cache
constexpr int64_t kWaveBytes = int64_t{24} << 20;  // of strips whose gradients are computed before they are summed
constexpr int64_t kMinPixels = 8, kMaxStrip = 256;
constexpr int64_t kSlice = 16;  // channels of a cache line, which one thread writes

struct Axis {
  int64_t size, out, kernel, stride, padding, dilation;
};

// A place between four pixels, each at its number in the image, or -1 outside. Shares include the mask.
struct Place {
  int64_t corner[4];
  float share[4], y, x, mask;
};

// Channels that lie together in the input, in a packed pixel and in a deformable group.
struct Segment {
  int64_t channel, count, block, lane, group;
};

struct Shape {
  int64_t images, in_channels, out_channels, groups, deform_groups, taps, pixels;
  Axis height, width;
  Channels channels;  // of the samples

  int64_t inside() const { return in_channels / groups; }
  int64_t outside() const { return out_channels / groups; }
  std::vector<Tap> rows() const {
    std::vector<Tap> found;
    for (int64_t tap = 0; tap < taps; ++tap) found.push_back({tap, 0, tap});
    return found;
  }
  std::vector<Segment> segments() const {
    std::vector<Segment> found;
    const int64_t of_group = in_channels / deform_groups;
    for (int64_t channel = 0; channel < in_channels;) {
      const int64_t within = channel % inside(),
                    packed = channels.plain() ? channel : channel / inside() * channels.padded + within;
      const int64_t count =
          std::min({in_channels - channel, inside() - within, of_group - channel % of_group, kBlock - packed % kBlock});
      found.push_back({channel, count, packed / kBlock, packed % kBlock, channel / of_group});
      channel += count;
    }
    return found;
  }
};

struct Settings {
  c10::IntArrayRef stride, padding, dilation;
  int64_t groups, deform_groups;
};

Axis axis_of(const Tensor& x, const Tensor& weight, const Settings& s, int64_t i) {
  const int64_t size = x.size(2 + i), kernel = weight.size(2 + i);
  const int64_t span = s.dilation[i] * (kernel - 1) + 1, room = size + 2 * s.padding[i] - span;
  return {size, room < 0 ? 0 : room / s.stride[i] + 1, kernel, s.stride[i], s.padding[i], s.dilation[i]};
}

Shape shape_of(const Tensor& x, const Tensor& offset, const Optional<Tensor>& mask, const Tensor& weight,
               const Settings& s) {
  const char* name = "deform_conv2d: ";
  TORCH_CHECK(x.dim() == 4 && offset.dim() == 4 && weight.dim() == 4, name, "expected 4-d tensors");
  TORCH_CHECK(s.stride.size() == 2 && s.padding.size() == 2 && s.dilation.size() == 2, name, "expected two numbers");
  for (int i = 0; i < 2; ++i)
    TORCH_CHECK(s.stride[i] >= 1 && s.stride[i] <= kMaxStep && s.padding[i] >= 0 && s.padding[i] <= kMaxStep &&
                    s.dilation[i] >= 1 && s.dilation[i] <= kMaxStep && weight.size(2 + i) >= 1 &&
                    weight.size(2 + i) <= kMaxStep / s.dilation[i],
                name, "stride, padding, dilation or kernel is out of range");
  const int64_t channels = x.size(1), out = weight.size(0);
  TORCH_CHECK(channels > 0 && out > 0 && channels_of(s.groups, weight.size(1)) == channels && out % s.groups == 0 &&
                  s.deform_groups >= 1 && channels % s.deform_groups == 0,
              name, "channels, groups and deformable groups do not fit");
  const int64_t taps = weight.size(2) * weight.size(3);
  const Axis height = axis_of(x, weight, s, 0), width = axis_of(x, weight, s, 1);
  const auto is_map = [&](const Tensor& map, int64_t count) {
    return map.dim() == 4 && map.size(0) == x.size(0) && map.size(1) == count && map.size(2) == height.out &&
           map.size(3) == width.out;
  };
  TORCH_CHECK(is_map(offset, 2 * taps * s.deform_groups), name, "the offsets do not fit: ", offset.sizes());
  TORCH_CHECK(!mask || is_map(*mask, taps * s.deform_groups), name, "the mask does not fit");
  for (const Tensor* each : {&x, &offset, &weight})
    TORCH_CHECK(each->scalar_type() == at::kFloat, name, "the CPU kernel takes float32");
  TORCH_CHECK(!mask || mask->scalar_type() == at::kFloat, name, "the CPU kernel takes float32");
  return {x.size(0),
          channels,
          out,
          s.groups,
          s.deform_groups,
          taps,
          height.out * width.out,
          height,
          width,
          Channels::of(s.groups, channels / s.groups)};
}

// The inputs as the loops read them: pixels [N, H W, C], offsets [N, deform groups, taps, 2, pixels], the mask alike.
class Sampler {
 public:
  Sampler(const Kernels& k, const Shape& shape, const Tensor& x, const Tensor& offset, const Optional<Tensor>& mask)
      : k_(k), shape_(shape), segments_(shape.segments()), x_(x.permute({0, 2, 3, 1}).contiguous()),
        offset_(offset.contiguous()), mask_(mask ? mask->contiguous() : Tensor()), nothing_(shape.in_channels, 0.f) {}

  const float* image(int64_t n) const {
    return x_.const_data_ptr<float>() + n * shape_.height.size * shape_.width.size * shape_.in_channels;
  }

  // Those of pixels [begin, begin + count), [count][taps][deform groups].
  void locate(int64_t n, int64_t begin, int64_t count, Place* places) const {
    const int64_t all = shape_.deform_groups * shape_.taps, area = shape_.pixels;
    const float* offset = offset_.const_data_ptr<float>() + n * all * 2 * area + begin;
    const float* mask = mask_.defined() ? mask_.const_data_ptr<float>() + n * all * area + begin : nullptr;
    for (int64_t p = 0; p < count; ++p) {
      const int64_t row = (begin + p) / shape_.width.out, column = (begin + p) % shape_.width.out;
      for (int64_t tap = 0; tap < shape_.taps; ++tap) {
        const int64_t y = start(shape_.height, row, tap / shape_.width.kernel);
        const int64_t x = start(shape_.width, column, tap % shape_.width.kernel);
        for (int64_t group = 0; group < shape_.deform_groups; ++group) {
          const int64_t at = group * shape_.taps + tap;
          *places++ = place(static_cast<float>(y) + offset[2 * at * area + p],
                            static_cast<float>(x) + offset[(2 * at + 1) * area + p], mask ? mask[at * area + p] : 1.f);
        }
      }
    }
  }

  // Samples of `count` pixels, packed: a row for each tap. Other lanes of `packed` stay as they are.
  void sample(int64_t n, const Place* places, int64_t count, const Layout& layout, float* packed) const {
    const float* pixels = image(n);
    for (int64_t p = 0; p < count; ++p)
      for (int64_t tap = 0; tap < shape_.taps; ++tap, places += shape_.deform_groups) {
        float* target = packed + tap * layout.row + p * kBlock;
        for (const Segment& s : segments_) {
          const Place& place = places[s.group];
          const float* corners[4];
          for (int i = 0; i < 4; ++i) corners[i] = corner(pixels, place, i) + s.channel;
          k_.blend(corners, place.share, s.count, target + s.block * layout.block + s.lane);
        }
      }
  }

  // The pixel at a corner, zeros outside.
  const float* corner(const float* pixels, const Place& place, int i) const {
    return place.corner[i] < 0 ? nothing_.data() : pixels + place.corner[i] * shape_.in_channels;
  }

 private:
  static int64_t start(const Axis& axis, int64_t out, int64_t tap) {
    return out * axis.stride - axis.padding + tap * axis.dilation;
  }

  Place place(float y, float x, float mask) const {
    const int64_t height = shape_.height.size, width = shape_.width.size;
    Place found{{-1, -1, -1, -1}, {0, 0, 0, 0}, 0, 0, mask};
    // a place that is no number is outside, too
    if (!(y > -1.f && x > -1.f && y < static_cast<float>(height) && x < static_cast<float>(width))) return found;
    const float top = std::floor(y), left = std::floor(x);
    found.y = y - top, found.x = x - left;
    const int64_t row = static_cast<int64_t>(top), column = static_cast<int64_t>(left);
    for (int i = 0; i < 4; ++i) {
      const int64_t at_y = row + i / 2, at_x = column + i % 2;
      if (at_y < 0 || at_x < 0 || at_y >= height || at_x >= width) continue;
      found.corner[i] = at_y * width + at_x;
      found.share[i] = mask * (i / 2 ? found.y : 1.f - found.y) * (i % 2 ? found.x : 1.f - found.x);
    }
    return found;
  }

  const Kernels& k_;
  const Shape& shape_;
  const std::vector<Segment> segments_;
  const Tensor x_, offset_, mask_;
  const std::vector<float> nothing_;
};

// How the pixels of all images are cut.
struct Strips {
  int64_t width, of_image, count;
  Layout layout;  // of the samples of one

  explicit Strips(const Shape& shape) {
    const int64_t bytes = shape.taps * shape.channels.blocks() * kBlock * static_cast<int64_t>(sizeof(float));
    const int64_t fitting = std::clamp(kStripBytes / bytes, kMinPixels, kMaxStrip);
    const int64_t shared = (shape.images * shape.pixels + at::get_num_threads() - 1) / at::get_num_threads();
    width = std::clamp(shared, kMinPixels, fitting);
    of_image = (shape.pixels + width - 1) / width;
    count = of_image * shape.images;
    layout.border = 0;
    layout.row = width * kBlock;
    layout.block = shape.taps * layout.row;
    layout.image = shape.channels.blocks() * layout.block;
  }
};

struct Strip {
  int64_t n, begin, pixels;

  Strip(const Shape& shape, const Strips& strips, int64_t number)
      : n(number / strips.of_image), begin(number % strips.of_image * strips.width),
        pixels(std::min(strips.width, shape.pixels - begin)) {}
};

// Packed images in memory that the caller keeps.
Packed packed_at(const float* data, const Channels& channels, const Layout& layout, int64_t batch, int64_t height,
                 int64_t width) {
  return {std::shared_ptr<const float>(std::shared_ptr<void>(), data), channels, layout, batch, height, width};
}

std::shared_ptr<const Prepared> prepare_output(const Kernels& k, const Shape& shape, const Tensor& weight) {
  return prepare({weight}, {2, k.lanes, shape.groups, 0}, [&] {
    std::vector<std::vector<Output>> outputs(shape.groups);
    for (int64_t i = 0; i < shape.out_channels; ++i) outputs[i / shape.outside()].push_back({i, i});
    Planner planner(k);
    plan_groups(planner, k, shape.channels, shape.rows(), outputs, 0);
    Prepared made;
    made.plan = planner.finish();
    made.weight = pack_weights(made.plan, {Filters::of(weight, shape.channels)}, weight.options());
    return made;
  });
}

}  // namespace

Tensor deform_conv2d(const Tensor& x, const Tensor& offset, const Optional<Tensor>& mask, const Tensor& weight,
                     const Optional<Tensor>& bias, c10::IntArrayRef stride, c10::IntArrayRef padding,
                     c10::IntArrayRef dilation, int64_t groups, int64_t deform_groups) {
  const Shape shape = shape_of(x, offset, mask, weight, {stride, padding, dilation, groups, deform_groups});
  TORCH_CHECK(!bias || (bias->numel() == shape.out_channels && bias->scalar_type() == at::kFloat),
              "deform_conv2d: bias must have ", shape.out_channels, " elements in float32");
  Tensor out = empty({shape.images, shape.out_channels, shape.height.out, shape.width.out}, x.options(),
                     x.suggest_memory_format());
  if (out.numel() == 0) return out;
  const Kernels& k = kernels();
  const auto prepared = prepare_output(k, shape, weight);
  const Tensor shift = bias ? bias->contiguous() : Tensor();
  const Sampler sampler(k, shape, x, offset, mask);
  const Strips strips(shape);
  const bool last = x.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  const int64_t channel = last ? 1 : shape.pixels, pixel = last ? shape.out_channels : 1;
  float* const data = out.mutable_data_ptr<float>();
  at::parallel_for(0, strips.count, 1, [&](int64_t begin, int64_t end) {
    std::vector<Place> places(strips.width * shape.taps * shape.deform_groups);
    const Tensor samples = zeros({strips.layout.image}, x.options());  // lanes between groups stay zero
    float* const packed = samples.mutable_data_ptr<float>();
    for (int64_t i = begin; i < end; ++i) {
      const Strip strip(shape, strips, i);
      sampler.locate(strip.n, strip.begin, strip.pixels, places.data());
      sampler.sample(strip.n, places.data(), strip.pixels, strips.layout, packed);
      const Target target{data + strip.n * shape.out_channels * shape.pixels + strip.begin * pixel,
                          1,
                          1,
                          strip.pixels,
                          0,
                          channel,
                          0,
                          pixel,
                          shift.defined() ? shift.const_data_ptr<float>() : nullptr,
                          false};
      run(k, prepared->plan, prepared->weight.const_data_ptr<float>(),
          packed_at(packed, shape.channels, strips.layout, 1, shape.taps, strip.pixels), 1, target);
    }
  });
  return out;
}

namespace {

// The gradients. Strips go in waves: threads compute the gradients of the samples of some strips each, then sum them
// into the input's gradient, some channels each, so that no two write one pixel and sums have one order.
class Gradients {
 public:
  Gradients(const Shape& shape, const Tensor& grad, const Tensor& x, const Tensor& offset, const Optional<Tensor>& mask,
            const Tensor& weight)
      : k_(kernels()), shape_(shape), strips_(shape), sampler_(k_, shape, x, offset, mask),
        grad_(grad.reshape({shape.images, shape.out_channels, 1, shape.pixels})),
        outputs_{1, shape.out_channels, shape.out_channels},
        to_x(zeros({shape.images, shape.height.size, shape.width.size, shape.in_channels}, x.options())),
        to_offset(zeros(offset.sizes(), offset.options())),
        to_mask(mask ? zeros(mask->sizes(), mask->options()) : empty({0}, x.options())),
        to_weight(zeros(weight.sizes(), weight.options())) {
    layout_.border = 0;
    layout_.row = layout_.block = strips_.width * kBlock;
    layout_.image = outputs_.blocks() * layout_.block;
    prepared_ = prepare({weight}, {3, k_.lanes, shape.groups, 0}, [&] {
      Prepared made;
      made.plan = plan();
      Filters filters = Filters::of(weight, outputs_);
      std::swap(filters.filter, filters.channel);
      if (shape.groups > 1) filters.group_in = shape.inside(), filters.group_out = shape.outside();
      made.weight = pack_weights(made.plan, {filters}, weight.options());
      return made;
    });
  }

  void run_all() {
    const int64_t values = shape_.taps * shape_.in_channels * strips_.width;
    const int64_t bytes = (strips_.layout.image + layout_.image + values) * static_cast<int64_t>(sizeof(float));
    const int64_t most = std::min(std::max<int64_t>(kWaveBytes / bytes, at::get_num_threads()), strips_.count);
    places_.resize(most * strips_.width * shape_.taps * shape_.deform_groups);
    samples_ = zeros({most, strips_.layout.image}, to_x.options());
    grads_ = empty({most, layout_.image}, to_x.options());
    of_samples_ = empty({most, values}, to_x.options());
    for (int64_t first = 0; first < strips_.count; first += most)
      run_wave(first, std::min(most, strips_.count - first));
  }

 private:
  // Input channel c of tap t is output t C + c.
  Plan plan() const {
    Planner planner(k_);
    for (int64_t tap = 0; tap < shape_.taps; ++tap)
      for (int64_t group = 0; group < shape_.groups; ++group) {
        std::vector<Output> outputs;
        for (int64_t c = group * shape_.inside(); c < (group + 1) * shape_.inside(); ++c)
          outputs.push_back({tap * shape_.in_channels + c, c});
        planner.add({{0, {{0, 0, group * shape_.outside(), shape_.outside(), tap}}}}, outputs, true);
      }
    return planner.finish();
  }

  float* of_samples(int64_t i) { return of_samples_.mutable_data_ptr<float>() + i * of_samples_.size(1); }
  Place* places(int64_t i) { return places_.data() + i * strips_.width * shape_.taps * shape_.deform_groups; }

  void run_wave(int64_t first, int64_t count) {
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) run_strip(i, Strip(shape_, strips_, first + i));
    });
    const int64_t slices = (shape_.in_channels + kSlice - 1) / kSlice;
    at::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      const int64_t last = std::min(end * kSlice, shape_.in_channels);
      for (int64_t i = 0; i < count; ++i) spread(i, Strip(shape_, strips_, first + i), begin * kSlice, last);
    });
    add_to_weight(count);
  }

  void run_strip(int64_t i, const Strip& strip) {
    sampler_.locate(strip.n, strip.begin, strip.pixels, places(i));
    float* const samples = samples_.mutable_data_ptr<float>() + i * strips_.layout.image;
    if (strip.pixels < strips_.width) std::fill(samples, samples + strips_.layout.image, 0.f);
    sampler_.sample(strip.n, places(i), strip.pixels, strips_.layout, samples);
    float* const grads = grads_.mutable_data_ptr<float>() + i * layout_.image;
    pack_piece(k_, {grad_, outputs_, 0}, {strip.n, 0, 1, strip.begin}, layout_, grads);  // zeros behind the last pixel
    const Target target{of_samples(i), 1, 1, strip.pixels, 0, 1, 0, shape_.taps * shape_.in_channels, nullptr, false};
    run(k_, prepared_->plan, prepared_->weight.const_data_ptr<float>(),
        packed_at(grads, outputs_, layout_, 1, 1, strip.pixels), 1, target);
    move(i, strip);
  }

  // Gradients for the offsets and the mask.
  void move(int64_t i, const Strip& strip) {
    const float* const pixels = sampler_.image(strip.n);
    const Place* place = places(i);
    const float* grad = of_samples(i);
    const int64_t of_group = shape_.in_channels / shape_.deform_groups, area = shape_.pixels;
    const int64_t all = shape_.deform_groups * shape_.taps;
    float* const to_offset_here = to_offset.mutable_data_ptr<float>() + strip.n * all * 2 * area + strip.begin;
    float* const to_mask_here =
        to_mask.numel() ? to_mask.mutable_data_ptr<float>() + strip.n * all * area + strip.begin : nullptr;
    for (int64_t p = 0; p < strip.pixels; ++p)
      for (int64_t tap = 0; tap < shape_.taps; ++tap)
        for (int64_t group = 0; group < shape_.deform_groups; ++group, ++place, grad += of_group) {
          const float* corners[4];
          for (int j = 0; j < 4; ++j) corners[j] = sampler_.corner(pixels, *place, j) + group * of_group;
          float dots[4];
          k_.dots(grad, corners, of_group, dots);
          const float y = place->y, x = place->x;
          const int64_t at = group * shape_.taps + tap;
          to_offset_here[2 * at * area + p] = place->mask * ((1 - x) * (dots[2] - dots[0]) + x * (dots[3] - dots[1]));
          to_offset_here[(2 * at + 1) * area + p] =
              place->mask * ((1 - y) * (dots[1] - dots[0]) + y * (dots[3] - dots[2]));
          if (to_mask_here)
            to_mask_here[at * area + p] =
                (1 - y) * ((1 - x) * dots[0] + x * dots[1]) + y * ((1 - x) * dots[2] + x * dots[3]);
        }
  }

  // Adds to channels [first, last) of the input's gradient.
  void spread(int64_t i, const Strip& strip, int64_t first, int64_t last) {
    float* const pixels =
        to_x.mutable_data_ptr<float>() + strip.n * shape_.height.size * shape_.width.size * shape_.in_channels;
    const Place* place = places(i);
    const float* grad = of_samples(i);
    const int64_t of_group = shape_.in_channels / shape_.deform_groups;
    const int64_t first_group = first / of_group, last_group = (last - 1) / of_group;
    for (int64_t p = 0; p < strip.pixels * shape_.taps; ++p, place += shape_.deform_groups, grad += shape_.in_channels)
      for (int64_t group = first_group; group <= last_group; ++group) {
        const int64_t begin = std::max(first, group * of_group), end = std::min(last, (group + 1) * of_group);
        for (int j = 0; j < 4; ++j)
          if (place[group].corner[j] >= 0)
            k_.add_times(grad + begin, place[group].share[j], end - begin,
                         pixels + place[group].corner[j] * shape_.in_channels + begin);
      }
  }

  void add_to_weight(int64_t count) {
    Tensor part = zeros(to_weight.sizes(), to_weight.options());
    std::vector<WeightFamily> families;
    for (int64_t group = 0; group < shape_.groups; ++group) {
      WeightFamily family;
      family.taps = shape_.rows();
      family.channel = group * shape_.channels.padded, family.inside = shape_.inside();
      family.padded = shape_.channels.padded;
      family.result = part.mutable_data_ptr<float>();
      for (int64_t o = group * shape_.outside(); o < (group + 1) * shape_.outside(); ++o)
        family.outputs.push_back({o, o});
      families.push_back(std::move(family));
    }
    weight_gradient(
        k_, std::move(families),
        packed_at(samples_.const_data_ptr<float>(), shape_.channels, strips_.layout, count, shape_.taps, strips_.width),
        packed_at(grads_.const_data_ptr<float>(), outputs_, layout_, count, 1, strips_.width), 1);
    to_weight.add_(part);
  }

  const Kernels& k_;
  const Shape& shape_;
  const Strips strips_;
  const Sampler sampler_;
  const Tensor grad_;
  const Channels outputs_;
  Layout layout_;  // of the packed gradient of one strip
  std::shared_ptr<const Prepared> prepared_;
  std::vector<Place> places_;
  Tensor samples_, grads_, of_samples_;

 public:
  Tensor to_x, to_offset, to_mask, to_weight;  // to_x: [N, H, W, C]
};

}  // namespace

DeformGradients deform_conv2d_grad(const Tensor& grad, const Tensor& x, const Tensor& offset,
                                   const Optional<Tensor>& mask, const Tensor& weight, c10::IntArrayRef stride,
                                   c10::IntArrayRef padding, c10::IntArrayRef dilation, int64_t groups,
                                   int64_t deform_groups) {
  const Shape shape = shape_of(x, offset, mask, weight, {stride, padding, dilation, groups, deform_groups});
  TORCH_CHECK(grad.dim() == 4 && grad.size(0) == shape.images && grad.size(1) == shape.out_channels &&
                  grad.size(2) == shape.height.out && grad.size(3) == shape.width.out &&
                  grad.scalar_type() == at::kFloat,
              "gradient of deform_conv2d: the gradient does not fit: ", grad.sizes());
  Gradients all(shape, grad, x, offset, mask, weight.contiguous());
  if (grad.numel() > 0) all.run_all();
  return {all.to_x.permute({0, 3, 1, 2}).contiguous(x.suggest_memory_format()), all.to_offset, all.to_mask,
          all.to_weight};
}

}  // namespace icconv_mm::cpu
