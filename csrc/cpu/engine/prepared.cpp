// See prepared.h.
#include "prepared.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>

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

// Sums of words and of these sums: sensitive to every bit and to the order, and made of additions only.
uint64_t fingerprint(const char* data, int64_t bytes) {
  constexpr int64_t kWide = 8;
  uint64_t sum[kWide] = {}, sums[kWide] = {}, words[kWide];
  int64_t i = 0;
  for (; i + 64 <= bytes; i += 64) {
    std::memcpy(words, data + i, 64);
    for (int64_t j = 0; j < kWide; ++j) sum[j] += words[j], sums[j] += sum[j];
  }
  uint64_t all = 1469598103934665603u;
  for (; i < bytes; ++i) all = (all ^ static_cast<unsigned char>(data[i])) * 1099511628211u;
  for (int64_t j = 0; j < kWide; ++j) all = (((all ^ sum[j]) * 1099511628211u) ^ sums[j]) * 1099511628211u;
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

std::mutex mutex;
std::list<Entry>&
entries() {  // the one used last at the end; never destroyed: at exit the allocator may be gone before it
  static auto* list = new std::list<Entry>;
  return *list;
}

// Makes room for one more packed form of these weights: drops the one that has not been used for the longest time.
void make_room(const std::vector<at::Tensor>& weights) {
  const auto is_at = [&](const Entry& entry) { return entry.all(weights, &Identity::is_at); };
  if (std::count_if(entries().begin(), entries().end(), is_at) >= kKeysPerSet)
    entries().erase(std::find_if(entries().begin(), entries().end(), is_at));
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
    const std::lock_guard<std::mutex> lock(mutex);
    entries().remove_if([](const Entry& entry) { return entry.dead(); });
    const auto found = std::find_if(entries().begin(), entries().end(),
                                    [&](const Entry& entry) { return entry.concerns(weights, key); });
    if (found != entries().end()) {
      entries().splice(entries().end(), entries(), found);
      again = found->states == states;
      if (again && found->prepared) return found->prepared;
      found->states = states;
      found->prepared = nullptr;
    } else {
      make_room(weights);
      Entry entry{{}, key, states, nullptr};
      for (const at::Tensor& weight : weights) entry.weights.emplace_back(weight);
      entries().push_back(std::move(entry));
    }
  }
  auto made = std::make_shared<const Prepared>(make());
  if (again) {
    const std::lock_guard<std::mutex> lock(mutex);
    for (Entry& entry : entries())
      if (entry.concerns(weights, key) && entry.states == states) entry.prepared = made;
  }
  return made;
}

int64_t forget_prepared() {
  const std::lock_guard<std::mutex> lock(mutex);
  const int64_t kept =
      std::count_if(entries().begin(), entries().end(), [](const Entry& entry) { return entry.prepared != nullptr; });
  entries().clear();
  forget_scratch();
  return kept;
}

}  // namespace icconv_mm::cpu
