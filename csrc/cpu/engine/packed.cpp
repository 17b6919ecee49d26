// See packed.h.
#include "packed.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace icconv_mm::cpu {
namespace {

constexpr int64_t kMostKept = int64_t{64} << 20;  // bytes
constexpr size_t kHugePage = size_t{2} << 20;

// Memory of one call is kept for the next: the allocator would give it back and fault in fresh pages.
struct Workspace {
  std::mutex mutex;
  std::shared_ptr<float> kept;  // null while in use
  int64_t bytes = 0;
};
Workspace& workspace() {  // never destroyed: at exit others may still use it
  static auto* one = new Workspace;
  return *one;
}

// Large inputs lie on huge pages where the system has them: a tile reads a dozen rows at once, each of which is on
// pages of its own otherwise.
std::shared_ptr<float> allocate(int64_t& bytes) {
  const bool large = static_cast<size_t>(bytes) >= kHugePage;
  const int64_t alignment = large ? static_cast<int64_t>(kHugePage) : 64;
  bytes = round_up(bytes, alignment);
  void* memory = std::aligned_alloc(alignment, bytes);
  TORCH_CHECK(memory, "out of memory: ", bytes, " bytes for the packed input of a convolution");
#if defined(__linux__)
  if (large) madvise(memory, bytes, MADV_HUGEPAGE);  // a wish; pages are as ever where it is not granted
#endif
  return {static_cast<float*>(memory), std::free};
}

// Of the source.
struct Row {
  int64_t channel, pixel;  // strides
  int64_t width;
  bool pairs;
  int64_t second;  // how far the second channel of a pair lies from the first
};

// `count` channels of one row, from `source` to `target`, whose pixels are kBlock apart.
void copy_channels(const Kernels& k, const float* source, const Row& row, int64_t count, float* target) {
  if (row.channel == 1) {
    if (count == kBlock) {  // of a size known to the compiler
      for (int64_t x = 0; x < row.width; ++x) std::memcpy(target + x * kBlock, source + x * row.pixel, kBlock * 4);
    } else {
      for (int64_t x = 0; x < row.width; ++x) std::memcpy(target + x * kBlock, source + x * row.pixel, count * 4);
    }
  } else if (row.pixel == 1) {
    k.transpose(source, row.channel, target, row.width, count);
  } else {
    for (int64_t x = 0; x < row.width; ++x)
      for (int64_t c = 0; c < count; ++c) target[x * kBlock + c] = source[c * row.channel + x * row.pixel];
  }
}

constexpr int64_t kPiece = 256;  // pixels that are paired at a time

uint32_t pair_of(const at::BFloat16* first, int64_t second) {
  return static_cast<uint32_t>(first->x) | static_cast<uint32_t>(first[second].x) << 16;
}

// Pairs of channels of rows whose pixels are neighbours: paired row by row, then transposed as floats are.
void copy_rows_of_pairs(const Kernels& k, const at::BFloat16* source, const Row& row, int64_t count, float* target) {
  alignas(64) uint32_t pairs[kMaxLanes][kPiece];
  for (int64_t x = 0; x < row.width; x += kPiece)
    for (int64_t c = 0; c < count; c += kMaxLanes) {
      const int64_t pixels = std::min(kPiece, row.width - x), channels = std::min<int64_t>(kMaxLanes, count - c);
      for (int64_t i = 0; i < channels; ++i) {
        const at::BFloat16* first = source + (c + i) * row.channel + x;
        for (int64_t j = 0; j < pixels; ++j) pairs[i][j] = pair_of(first + j, row.second);
      }
      k.transpose(reinterpret_cast<const float*>(pairs), kPiece, target + x * kBlock + c, pixels, channels);
    }
}

void copy_pairs(const Kernels& k, const at::BFloat16* source, const Row& row, int64_t count, float* target) {
  if (row.second == 1) {
    for (int64_t x = 0; x < row.width; ++x) std::memcpy(target + x * kBlock, source + x * row.pixel, count * 4);
  } else if (row.pixel == 1) {
    copy_rows_of_pairs(k, source, row, count, target);
  } else {
    for (int64_t x = 0; x < row.width; ++x)
      for (int64_t c = 0; c < count; ++c) {
        const uint32_t pair = pair_of(source + c * row.channel + x * row.pixel, row.second);
        std::memcpy(target + x * kBlock + c, &pair, sizeof pair);
      }
  }
}

void copy_channels(const Kernels& k, const at::BFloat16* source, const Row& row, int64_t count, float* target) {
  if (row.pairs) return copy_pairs(k, source, row, count, target);
  for (int64_t x = 0; x < row.width; ++x)
    for (int64_t c = 0; c < count; ++c)
      target[x * kBlock + c] = static_cast<float>(source[c * row.channel + x * row.pixel]);
}

// Pixels of one packed row: zeros, pixels of the image, zeros.
struct Span {
  int64_t before, after;
};

void clear(float* target, int64_t pixels) { std::memset(target, 0, pixels * kBlock * sizeof(float)); }

// One row of one block; `source` is the first pixel of channel 0 that is copied.
template <typename T>
void pack_row(const Kernels& k, const T* source, const Row& row, const Span& span, const Channels& c, int64_t block,
              float* target) {
  const int64_t first = block * kBlock, all = c.plain() ? c.groups * c.inside : c.groups * c.padded;
  const int64_t last = std::min(first + kBlock, all);
  if (c.plain() && last == first + kBlock) {
    clear(target, span.before);
    clear(target + (span.before + row.width) * kBlock, span.after);
  } else {
    clear(target, span.before + row.width + span.after);
  }
  target += span.before * kBlock;
  if (c.plain()) {
    copy_channels(k, source + first * row.channel, row, last - first, target);
    return;
  }
  for (int64_t at = first; at < last;) {  // piece by piece of the groups
    const int64_t group = at / c.padded, inside = at % c.padded;
    const int64_t next = std::min((group + 1) * c.padded, last);
    const int64_t count = std::min(next - at, c.inside - inside);
    if (count > 0)
      copy_channels(k, source + (group * c.inside + inside) * row.channel, row, count, target + at - first);
    at = next;
  }
}

template <typename T>
void pack_rows(const Kernels& k, const Source& source, const Piece& piece, const Layout& layout, float* target) {
  const at::Tensor& x = source.x;
  const int64_t columns = layout.row / kBlock, left = piece.x0 - layout.border;  // of the target, where it begins
  const int64_t begin = std::max<int64_t>(left, 0), end = std::min(left + columns, source.width());
  const Span span{begin - left, left + columns - end};
  const bool pairs = source.channels.pairs;
  const int64_t blocks = source.channels.blocks();
  const Row row{pairs ? 2 * x.stride(1) : x.stride(1), x.stride(3), end - begin, pairs, x.stride(1)};
  const T* data = x.const_data_ptr<T>() + piece.n * x.stride(0) + begin * x.stride(3);
  for (int64_t y = piece.y0; y < piece.y1; ++y)
    for (int64_t block = 0; block < blocks; ++block)
      pack_row(k, data + y * x.stride(2), row, span, source.channels, block,
               target + block * layout.block + (y - piece.y0) * layout.row);
}

}  // namespace

std::shared_ptr<float> borrow(int64_t size) {
  int64_t bytes = std::max<int64_t>(size, 1) * static_cast<int64_t>(sizeof(float));
  std::shared_ptr<float> memory;
  {
    const std::lock_guard<std::mutex> lock(workspace().mutex);
    if (workspace().kept && workspace().bytes >= bytes) {
      std::swap(memory, workspace().kept);
      bytes = workspace().bytes;
    }
  }
  if (!memory) memory = allocate(bytes);
  return {memory.get(), [memory, bytes](float*) {
            const std::lock_guard<std::mutex> lock(workspace().mutex);
            if (bytes > kMostKept || (workspace().kept && workspace().bytes >= bytes)) return;
            workspace().kept = memory;
            workspace().bytes = bytes;
          }};
}

void check_type(const char* name, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16, name,
              ": the CPU kernel takes float32 or bfloat16, got ", tensor.scalar_type());
}

Layout Layout::of(const Source& source, int64_t height, int64_t width) {
  Layout layout;
  layout.border = source.border;
  layout.row = (width + 2 * source.border) * kBlock;
  layout.block = height * layout.row;
  layout.image = source.channels.blocks() * layout.block;
  return layout;
}

void pack_piece(const Kernels& k, const Source& source, const Piece& piece, const Layout& layout, float* target) {
  if (source.x.scalar_type() == at::kBFloat16)
    pack_rows<at::BFloat16>(k, source, piece, layout, target);
  else
    pack_rows<float>(k, source, piece, layout, target);
}

Packed pack(const Kernels& k, const Source& source) {
  const int64_t height = source.height();
  const Layout layout = Layout::of(source, height, source.width());
  const std::shared_ptr<float> storage = borrow(source.batch() * layout.image);
  at::parallel_for(0, source.batch() * height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t n = i / height, y = i % height, y1 = std::min(height, y + end - i);
      pack_piece(k, source, {n, y, y1, 0}, layout, storage.get() + n * layout.image + y * layout.row);
      i += y1 - y;
    }
  });
  return {storage, source.channels, layout, source.batch(), height, source.width()};
}

void forget_workspace() {
  const std::lock_guard<std::mutex> lock(workspace().mutex);
  workspace().kept = nullptr;
}

}  // namespace icconv_mm::cpu
