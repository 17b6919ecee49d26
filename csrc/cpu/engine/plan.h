// A direct convolution as a list of jobs. Nothing here depends on the size of the map, so that a plan and the weights
// that are packed for it serve inputs of every size.
#pragma once

#include <vector>

#include "packed.h"

namespace icconv_mm::cpu {

// Channels [channel, channel + count) of packed input at the pixel (dy, dx) away, and the tap of the filter that meets
// them. A filter tap is a number; the caller knows its place in the weight.
struct Read {
  int64_t dy, dx, channel, count, tap;
};

// What the pixels of some jobs read, by ascending dy: for an output row near the border the reads that lie inside the
// map are then neighbours, and the others cost nothing.
struct Reading {
  struct Row {
    int64_t dy, read, unit;  // the first of this dy; units are vectors (dot) or channels (outer)
  };
  std::vector<Read> reads;
  std::vector<Row> rows;  // and an end
  std::vector<int64_t> units;
  int64_t blocks = 0;  // of packed input that it touches
  int slide = -1;      // which of kSlides the taps of each row are, if any
};

// One output channel: its number in the result, and that of its filter in the weight; -1 where a lane has none.
struct Output {
  int64_t channel, filter;
};

struct Job {
  // kGroups is a dot tile whose vectors hold several groups: row r computes one output of each, outputs[r * slots + j]
  enum Kind { kDot, kOuter, kGroups } kind;
  struct Part {
    int64_t reading, level, weight;  // number of a reading, of the filters; offset into the packed weight
  };
  int width;  // rows or vectors
  std::vector<Output> outputs;
  std::vector<Part> parts;  // summed one after the other: slices of the input channels
  bool neighbours;          // output channels follow each other
  double cost = 0;
};

struct Plan {
  int lanes = 0;
  std::vector<Reading> readings;
  std::vector<Job> jobs;
  size_t slices = 1;
  int64_t weight_size = 0;  // floats
};

// Filters as a plan sees them: element (filter, input channel within the group, tap).
struct Filters {
  const at::Tensor* tensor;
  Channels channels;         // of the packed input
  int64_t filter, channel;   // strides
  std::vector<int64_t> tap;  // offset of each
  // For the gradient of a grouped convolution, whose inputs are the outputs of the convolution, from number `first` on:
  // the filters are input channels, and only those of the same group meet. 0 without groups.
  int64_t first = 0, group_in = 0, group_out = 0;

  // Those of a weight [filters, channels within a group, height, width].
  static Filters of(const at::Tensor& weight, const Channels& channels);
};

// Reads of the filters number `level`.
struct Reads {
  int64_t level;
  std::vector<Read> list;
};

class Planner {
 public:
  explicit Planner(const Kernels& k) : k_(k) { plan_.lanes = k.lanes; }
  // Outputs that see the same pixels and channels; the sum over all `reads`.
  void add(const std::vector<Reads>& reads, const std::vector<Output>& outputs, bool outer_only = false);
  // As `add` where a vector holds several groups: outputs[j] are those of the j-th group of the vector.
  void add_groups(const Reads& reads, const std::vector<std::vector<Output>>& outputs);
  Plan finish();

 private:
  std::vector<Job::Part> parts_of(const Reads& reads, bool dot);
  void add_job(Job job);

  const Kernels& k_;
  Plan plan_;
};

// A position of the kernel, seen from the output pixel, and its number in the weight.
struct Tap {
  int64_t dy, dx, number;
};
std::vector<Tap> taps_of(int64_t height, int64_t width, int64_t dilation_h, int64_t dilation_w);

// The jobs of a grouped convolution whose group g has the outputs outputs[g].
void plan_groups(Planner& planner, const Kernels& k, const Channels& channels, const std::vector<Tap>& taps,
                 const std::vector<std::vector<Output>>& outputs, int64_t level);

at::Tensor pack_weights(const Plan& plan, const std::vector<Filters>& levels, const at::TensorOptions& options);

}  // namespace icconv_mm::cpu
