// See prepared.h.
#include "prepared.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <mutex>
#include <unordered_map>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace icconv_mm::cpu {
namespace {

constexpr int64_t kPieces = 16;  // of a fingerprint, however many threads there are
constexpr int64_t kKeysPerSet =
    4;  // packed forms of one set of weights: instruction sets, patterns that share a weight

// Which weight a tensor is: the memory it lies in and the counter of its changes, which its views share and `.data`
// does not. The tensor itself is not held on to, not even weakly: torch.utils.swap_tensors refuses tensors that are.
class Identity {
 public:
  explicit Identity(const at::Tensor& weight)
      : storage_(weight.storage().getWeakStorageImpl()), target_(storage_._unsafe_get_target()),
        offset_(weight.storage_offset()),
        counter_(weight.is_inference() ? c10::VariableVersion(c10::VariableVersion::DISABLED)
                                       : weight.unsafeGetTensorImpl()->version_counter()) {}

  bool is_of(const at::Tensor& weight) const {
    // as long as a copy of the counter is here, no other one has its address
    static_assert(sizeof(c10::VariableVersion) == sizeof(void*), "a VariableVersion is a pointer to the counter");
    if (!is_at(weight)) return false;
    if (weight.is_inference()) return !counter_.enabled();
    return std::memcmp(&counter_, &weight.unsafeGetTensorImpl()->version_counter(), sizeof counter_) == 0;
  }
  // Whether it lies where the weight does, under whatever counter.
  bool is_at(const at::Tensor& weight) const {
    return target_ == weight.storage().unsafeGetStorageImpl() && offset_ == weight.storage_offset() && !dead();
  }
  bool dead() const { return storage_.expired(); }

 private:
  c10::weak_intrusive_ptr<c10::StorageImpl> storage_;
  c10::StorageImpl* target_;
  int64_t offset_;
  c10::VariableVersion counter_;
};

constexpr int64_t kWide = 8;                     // words that are summed side by side
constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;  // odd, so that all places differ

// Adds to eight sums the products of the halves of words, each first mixed with its place. In a sum of words alone,
// changes of several words could cancel, such as those of signs. It is the hash NH of UMAC (RFC 4418), with places for
// its key. Returns how many bytes were read, a multiple of 64.
#if defined(__SSE2__)
int64_t add_products(const char* data, int64_t bytes, uint64_t* sums) {
  __m128i sum[4], place[4];
  for (int64_t j = 0; j < 4; ++j) {
    sum[j] = _mm_setzero_si128();
    place[j] = _mm_set_epi64x(static_cast<int64_t>((2 * j + 2) * kStep), static_cast<int64_t>((2 * j + 1) * kStep));
  }
  const __m128i step = _mm_set1_epi64x(static_cast<int64_t>(kWide * kStep));
  int64_t i = 0;
  for (; i + 64 <= bytes; i += 64)
    for (int64_t j = 0; j < 4; ++j) {
      const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + i + 16 * j));
      const __m128i k = _mm_xor_si128(words, place[j]);
      sum[j] = _mm_add_epi64(sum[j], _mm_mul_epu32(k, _mm_srli_epi64(k, 32)));  // gcc makes other ones of its loop
      place[j] = _mm_add_epi64(place[j], step);
    }
  for (int64_t j = 0; j < 4; ++j) _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + 2 * j), sum[j]);
  return i;
}
#else
int64_t add_products(const char* data, int64_t bytes, uint64_t* sums) {
  int64_t i = 0;
  for (uint64_t place = kStep; i + 64 <= bytes; i += 64)
    for (int64_t j = 0; j < kWide; ++j, place += kStep) {
      uint64_t word;
      std::memcpy(&word, data + i + 8 * j, 8);
      const uint64_t k = word ^ place;
      sums[j] += (k & 0xffffffffu) * (k >> 32);
    }
  return i;
}
#endif

uint64_t fingerprint(const char* data, int64_t bytes) {
  uint64_t sums[kWide] = {}, all = 1469598103934665603u;
  for (int64_t i = add_products(data, bytes, sums); i < bytes; ++i)
    all = (all ^ static_cast<unsigned char>(data[i])) * 1099511628211u;
  for (const uint64_t sum : sums) all = (all ^ sum ^ sum >> 32) * 1099511628211u;
  return all;
}

uint64_t fingerprint(const at::Tensor& weight) {
  const char* data = static_cast<const char*>(weight.const_data_ptr());
  const int64_t bytes = static_cast<int64_t>(weight.nbytes());
  uint64_t parts[kPieces];
  const auto piece = [&](int64_t i) { return bytes * i / kPieces; };
  at::parallel_for(0, kPieces, bytes < 1 << 20 ? kPieces : 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) parts[i] = fingerprint(data + piece(i), piece(i + 1) - piece(i));
  });
  return fingerprint(reinterpret_cast<const char*>(parts), sizeof parts);
}

// What tells one state of a weight from another.
struct State {
  const void* data;
  std::vector<int64_t> layout;
  int64_t version;
  uint64_t content;

  static State of(const at::Tensor& weight) {
    State s{weight.const_data_ptr(),
            {},
            weight.is_inference() ? 0 : static_cast<int64_t>(weight._version()),
            fingerprint(weight)};
    for (int64_t i = 0; i < weight.dim(); ++i) s.layout.push_back(weight.size(i)), s.layout.push_back(weight.stride(i));
    return s;
  }
  bool operator==(const State& o) const {
    return data == o.data && layout == o.layout && version == o.version && content == o.content;
  }
};

struct Entry {
  std::vector<Identity> weights;
  std::vector<int64_t> key;
  std::vector<State> states;
  std::shared_ptr<const Prepared> prepared;  // null at first sight

  bool all(const std::vector<at::Tensor>& others, bool (Identity::*is)(const at::Tensor&) const) const {
    if (weights.size() != others.size()) return false;
    for (size_t i = 0; i < weights.size(); ++i)
      if (!(weights[i].*is)(others[i])) return false;
    return true;
  }
  bool concerns(const std::vector<at::Tensor>& others, const std::vector<int64_t>& other_key) const {
    return key == other_key && all(others, &Identity::is_of);
  }
  bool dead() const {
    return std::any_of(weights.begin(), weights.end(), [](const Identity& weight) { return weight.dead(); });
  }
};

// What is kept, by the address of the first weight: the few entries of one address, the one used last at the end.
struct Kept {
  std::mutex mutex;
  std::unordered_map<const void*, std::vector<Entry>> entries;
  size_t count = 0, added = 0;  // entries in all, and those since the dead ones were last looked for

  Entry* find(const std::vector<at::Tensor>& weights, const std::vector<int64_t>& key) {
    const auto bucket = entries.find(weights[0].const_data_ptr());
    if (bucket == entries.end()) return nullptr;
    std::vector<Entry>& found = bucket->second;
    const auto entry =
        std::find_if(found.begin(), found.end(), [&](const Entry& each) { return each.concerns(weights, key); });
    if (entry == found.end()) return nullptr;
    std::rotate(entry, entry + 1, found.end());
    return &found.back();
  }

  void add(Entry entry, const std::vector<at::Tensor>& weights) {
    if (++added > count / 8) drop_dead();  // so that it costs each that is added the same, however many there are
    std::vector<Entry>& others = entries[weights[0].const_data_ptr()];
    const auto is_at = [&](const Entry& each) { return each.all(weights, &Identity::is_at); };
    if (std::count_if(others.begin(), others.end(), is_at) >= kKeysPerSet) {
      others.erase(std::find_if(others.begin(), others.end(), is_at));
      --count;
    }
    others.push_back(std::move(entry));
    ++count;
  }

  void drop_dead() {
    count = added = 0;
    for (auto bucket = entries.begin(); bucket != entries.end();) {
      std::vector<Entry>& each = bucket->second;
      each.erase(std::remove_if(each.begin(), each.end(), [](const Entry& entry) { return entry.dead(); }), each.end());
      count += each.size();
      bucket = each.empty() ? entries.erase(bucket) : std::next(bucket);
    }
  }
};
Kept& kept() {  // never destroyed: at exit the allocator may be gone before it
  static auto* one = new Kept;
  return *one;
}

bool may_be_kept(const at::Tensor& weight) { return weight.is_non_overlapping_and_dense() && weight.numel() > 0; }

}  // namespace

std::shared_ptr<const Prepared> prepare(const std::vector<at::Tensor>& weights, std::vector<int64_t> key,
                                        const std::function<Prepared()>& make) {
  if (!std::all_of(weights.begin(), weights.end(), may_be_kept)) return std::make_shared<Prepared>(make());
  std::vector<State> states;
  for (const at::Tensor& weight : weights) states.push_back(State::of(weight));
  bool again = false;
  {
    const std::lock_guard<std::mutex> lock(kept().mutex);
    if (Entry* found = kept().find(weights, key)) {
      again = found->states == states;
      if (again && found->prepared) return found->prepared;
      found->states = states;
      found->prepared = nullptr;
    } else {
      Entry entry{{}, key, states, nullptr};
      for (const at::Tensor& weight : weights) entry.weights.emplace_back(weight);
      kept().add(std::move(entry), weights);
    }
  }
  auto made = std::make_shared<const Prepared>(make());
  if (again) {
    const std::lock_guard<std::mutex> lock(kept().mutex);
    Entry* found = kept().find(weights, key);
    if (found && found->states == states) found->prepared = made;
  }
  return made;
}

int64_t forget_prepared() {
  const std::lock_guard<std::mutex> lock(kept().mutex);
  int64_t forgotten = 0;
  for (const auto& bucket : kept().entries)
    for (const Entry& entry : bucket.second) forgotten += entry.prepared != nullptr;
  kept().entries.clear();
  kept().count = kept().added = 0;
  forget_workspace();
  return forgotten;
}

}  // namespace icconv_mm::cpu
