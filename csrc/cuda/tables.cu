// See tables.h.
#include "tables.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace icconv_mm::cuda {
namespace {

struct KeyHash {
  size_t operator()(const std::vector<int64_t>& key) const {
    uint64_t hash = 1469598103934665603ull;  // FNV-1a over words
    for (int64_t value : key) hash = (hash ^ static_cast<uint64_t>(value)) * 1099511628211ull;
    return hash;
  }
};

// In relaxed mode a thread may allocate and copy outside of the graph that it is capturing.
class OutsideCapture {
 public:
  OutsideCapture() { C10_CUDA_CHECK(cudaThreadExchangeStreamCaptureMode(&mode_)); }
  ~OutsideCapture() { C10_CUDA_CHECK_WARN(cudaThreadExchangeStreamCaptureMode(&mode_)); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

int* upload(const std::vector<int>& numbers) {
  const OutsideCapture outside;
  const size_t bytes = std::max<size_t>(1, numbers.size()) * sizeof(int);
  int* device = nullptr;
  cudaStream_t stream = nullptr;
  C10_CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&device), bytes));
  C10_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  C10_CUDA_CHECK(cudaMemcpyAsync(device, numbers.data(), numbers.size() * sizeof(int), cudaMemcpyHostToDevice, stream));
  C10_CUDA_CHECK(cudaStreamSynchronize(stream));
  C10_CUDA_CHECK(cudaStreamDestroy(stream));
  return device;
}

}  // namespace

const Table& cached_table(TableKind kind, c10::IntArrayRef parameters, c10::IntArrayRef layer,
                          const std::function<std::vector<int>()>& build) {
  static std::mutex mutex;
  static auto* tables = new std::unordered_map<std::vector<int64_t>, std::unique_ptr<Table>, KeyHash>;  // never freed
  thread_local std::vector<int64_t> key;
  key.assign({static_cast<int64_t>(kind), current_device().index, static_cast<int64_t>(parameters.size())});
  key.insert(key.end(), parameters.begin(), parameters.end());
  key.insert(key.end(), layer.begin(), layer.end());
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Table>& table = (*tables)[key];
  if (!table) {
    auto made = std::make_unique<Table>();
    made->host = build();
    made->device = upload(made->host);
    table = std::move(made);
  }
  return *table;
}

at::Tensor channels_last(const at::Tensor& tensor) {
  const at::Tensor found = tensor.contiguous(at::MemoryFormat::ChannelsLast);
  const bool aligned = reinterpret_cast<uintptr_t>(found.const_data_ptr()) % 16 == 0;
  return aligned ? found : found.clone(at::MemoryFormat::ChannelsLast);
}

const Device& current_device() {
  static std::mutex mutex;
  static auto* devices = new std::map<int, Device>;
  const int index = c10::cuda::current_device();
  const std::lock_guard<std::mutex> lock(mutex);
  auto found = devices->find(index);
  if (found == devices->end()) {
    Device d{index, 0, 0, 0, 0};
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&d.major, cudaDevAttrComputeCapabilityMajor, index));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&d.minor, cudaDevAttrComputeCapabilityMinor, index));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&d.processors, cudaDevAttrMultiProcessorCount, index));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&d.shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
    found = devices->emplace(index, d).first;
  }
  return found->second;
}

}  // namespace icconv_mm::cuda
