// One call of the sum of two levels of a pyramid: checks, memory formats, types.
#pragma once

#include "../common/common.h"
#include "kernels.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

namespace icconv_mm::pyramid_sum {

using at::Tensor;

constexpr int64_t kVectorBytes = 16;

inline void check(const Tensor& own, const Tensor& coarser, const Optional<Tensor>& finer) {
  TORCH_CHECK(own.dim() == 4 && coarser.dim() == 4 && own.size(0) == coarser.size(0) &&
                  own.size(1) == coarser.size(1) && coarser.numel() > 0,
              "pyramid_sum: expected two levels [N, C, H, W] that are not empty, with N and C alike, got ", own.sizes(),
              " and ", coarser.sizes());
  TORCH_CHECK(own.scalar_type() == coarser.scalar_type() && own.device() == coarser.device(),
              "pyramid_sum: expected levels of one dtype and device, got ", own.scalar_type(), " on ", own.device(),
              " and ", coarser.scalar_type(), " on ", coarser.device());
  TORCH_CHECK(!finer || (finer->sizes() == own.sizes() && finer->scalar_type() == own.scalar_type() &&
                         finer->device() == own.device()),
              "pyramid_sum: expected a third map like ", own.scalar_type(), own.sizes(), ", got ", finer->scalar_type(),
              finer->sizes());
}

// Runner::run<T, kChannelsLast>(call) computes everything.
template <typename Runner>
Tensor run(const Tensor& own, const Tensor& coarser, const Optional<Tensor>& finer) {
  check(own, coarser, finer);
  const auto format = own.suggest_memory_format();
  const Tensor a = own.contiguous(format), b = coarser.contiguous(format);
  const Tensor c = finer ? finer->contiguous(format) : Tensor();
  const Tensor out = at::empty_like(a);
  if (out.numel() == 0) return out;
  const Runner runner(own);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, own.scalar_type(), "pyramid_sum", [&] {
    const Arguments<scalar_t> args{a.const_data_ptr<scalar_t>(),
                                   c.defined() ? c.const_data_ptr<scalar_t>() : nullptr,
                                   b.const_data_ptr<scalar_t>(),
                                   out.mutable_data_ptr<scalar_t>(),
                                   a.size(0),
                                   a.size(1),
                                   a.size(2),
                                   a.size(3),
                                   b.size(2),
                                   b.size(3)};
    if (format == at::MemoryFormat::ChannelsLast)
      runner.template run<scalar_t, true>(args);
    else
      runner.template run<scalar_t, false>(args);
  });
  return out;
}

// Whether all that a call reads and writes may be taken 16 bytes at a time.
template <typename T>
bool is_aligned(const Arguments<T>& args) {
  uintptr_t all = 0;
  for (const void* each : {static_cast<const void*>(args.own), static_cast<const void*>(args.finer),
                           static_cast<const void*>(args.coarser), static_cast<const void*>(args.out)})
    all |= reinterpret_cast<uintptr_t>(each);
  return all % kVectorBytes == 0 && args.channels * sizeof(T) % kVectorBytes == 0;
}

// Calls body(Elements) with what a thread takes at a time.
template <typename T, bool kChannelsLast, typename Body>
void with_elements(const Arguments<T>& args, const Body& body) {
  const int64_t count = args.images * args.channels * args.height * args.width;
  constexpr int kAtOnce = kVectorBytes / sizeof(T);
  if (kChannelsLast && is_aligned(args))
    body(Elements<T, kChannelsLast, kAtOnce>(), count / kAtOnce);
  else
    body(Elements<T, kChannelsLast, 1>(), count);
}

}  // namespace icconv_mm::pyramid_sum
