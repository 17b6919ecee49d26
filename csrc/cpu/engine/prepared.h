// Plans with their packed weights, kept while the weights stay the same.
#pragma once

#include <functional>
#include <memory>

#include "plan.h"

namespace icconv_mm::cpu {

struct Prepared {
  Plan plan;
  at::Tensor weight;
};

// What `make` makes for these weights and this key (everything else that it depends on). Once weights have been seen
// twice unchanged, the result is kept until they change or their memory is freed; so inference packs once, and training
// keeps nothing. Of one set of weights, the few results that were used last are kept.
//
// A change is seen by the tensor's version counter and by the content: averaged copies and teachers, whose weights are
// frozen, are written to around the counter as well (`parameter.data.copy_`).
std::shared_ptr<const Prepared> prepare(const std::vector<at::Tensor>& weights, std::vector<int64_t> key,
                                        const std::function<Prepared()>& make);

// Drops everything that is kept, workspace memory as well. Returns how many sets of weights that were.
int64_t forget_prepared();

}  // namespace icconv_mm::cpu
