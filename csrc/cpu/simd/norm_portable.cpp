// The loops of integrated batch norm for any machine.
#include "norm.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../../host_device.h"

namespace icconv_mm {
namespace portable {

constexpr int kVectorBytes = 16;
#include "norm.inc"

}  // namespace portable

const NormKernels& portable_norm() { return portable::norm(); }

}  // namespace icconv_mm
