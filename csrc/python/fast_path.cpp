// Calls of the operators from Python that need no Python: `prepared` of icconv_mm/ops/dispatch.py takes common calls
// here.
//
// The operators are defined in Python, whose dispatch and autograd cost more time than a small layer has. A
// `Convolution` holds what does not change from one call of a layer to the next; it serves ordinary tensors that nobody
// watches, where the chosen kernels are compiled ones, and returns None for everything else: the operators in Python
// serve that.
#include "convolution.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>

namespace icconv_mm::python {
namespace {

namespace py = pybind11;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename Signature>
class Operator {  // of the dispatcher, looked up once
 public:
  explicit Operator(const char* name)
      : handle_(c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>()) {}

  template <typename... Args>
  auto operator()(Args&&... args) const {
    return handle_.call(std::forward<Args>(args)...);
  }

 private:
  c10::TypedOperatorHandle<Signature> handle_;
};

using Ints = c10::IntArrayRef;
using at::Tensor;
using at::TensorList;

// A stride, a dilation or a number of groups; what is larger is left to Python.
bool is_usual(int64_t number) { return number >= 1 && number <= (1 << 20); }

class Inception : public Convolution {
 public:
  Inception(std::vector<int64_t> pattern, int64_t stride, int64_t groups, bool relu)
      : pattern_(std::move(pattern)), stride_(stride), groups_(groups), relu_(relu) {
    for (size_t i = 0; i < pattern_.size(); i += 3) out_channels_ += pattern_[i];
  }

  bool fits(const Tensor& x, TensorList weights, const Optional<Tensor>& bias) const override {
    const Tensor& weight = weights[0];
    return is_usual(stride_) && is_usual(groups_) && x.dim() == 4 && weight.dim() == 4 && weight.size(2) == 3 &&
           weight.size(3) == 3 && x.size(1) >= 1 && x.size(1) == weight.size(1) * groups_ &&
           weight.size(0) % groups_ == 0 && out_channels_ == weight.size(0) &&
           (!bias || (bias->dim() == 1 && bias->size(0) == out_channels_));
  }

  Tensor output(const Tensor& x, TensorList weights, const Optional<Tensor>& bias) const override {
    using Signature = Tensor(const Tensor&, const Tensor&, const Optional<Tensor>&, Ints, int64_t, int64_t);
    static const Operator<Signature> plain("icconv_mm::inception_conv2d_compiled");
    static const Operator<Signature> with_relu("icconv_mm::inception_conv2d_relu_compiled");
    return (relu_ ? with_relu : plain)(x, weights[0], bias, pattern_, stride_, groups_);
  }

  Tensor grad_input(const Tensor& grad, TensorList weights, Ints size) const override {
    static const Operator<Tensor(const Tensor&, const Tensor&, Ints, Ints, int64_t, int64_t)> run(
        "icconv_mm::inception_conv2d_grad_input_compiled");
    return run(grad, weights[0], size, pattern_, stride_, groups_);
  }

  variable_list grad_weight(const Tensor& grad, const Tensor& x, TensorList) const override {
    static const Operator<Tensor(const Tensor&, const Tensor&, Ints, int64_t, int64_t)> run(
        "icconv_mm::inception_conv2d_grad_weight_compiled");
    return {run(grad, x, pattern_, stride_, groups_)};
  }

  variable_list backward(const Tensor& grad, const Tensor& x, TensorList weights, bool to_x, bool to_weights,
                         const std::string& backend) const override {
    static const Operator<variable_list(const Tensor&, const Tensor&, const Tensor&, Ints, int64_t, int64_t, bool, bool,
                                        c10::string_view)>
        run("icconv_mm::inception_conv2d_backward");
    return run(grad, x, weights[0], pattern_, stride_, groups_, to_x, to_weights, backend);
  }

 private:
  std::vector<int64_t> pattern_;
  int64_t stride_, groups_, out_channels_ = 0;
  bool relu_;
};

class Pyramidal : public Convolution {
 public:
  Pyramidal(std::vector<int64_t> groups, int64_t stride, int64_t dilation, bool relu)
      : groups_(std::move(groups)), stride_(stride), dilation_(dilation), relu_(relu) {}

  bool fits(const Tensor& x, TensorList weights, const Optional<Tensor>& bias) const override {
    if (!is_usual(stride_) || !is_usual(dilation_) || x.dim() != 4 || x.size(1) < 1 || weights.size() != groups_.size())
      return false;
    int64_t out_channels = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const Tensor& weight = weights[i];
      if (weight.dim() != 4 || weight.size(2) % 2 == 0 || weight.size(3) % 2 == 0 || !is_usual(groups_[i]) ||
          x.size(1) != weight.size(1) * groups_[i] || weight.size(0) % groups_[i] != 0)
        return false;
      out_channels += weight.size(0);
    }
    return !bias || (bias->dim() == 1 && bias->size(0) == out_channels);
  }

  Tensor output(const Tensor& x, TensorList weights, const Optional<Tensor>& bias) const override {
    using Signature = Tensor(const Tensor&, TensorList, const Optional<Tensor>&, Ints, int64_t, int64_t);
    static const Operator<Signature> plain("icconv_mm::pyconv2d_compiled");
    static const Operator<Signature> with_relu("icconv_mm::pyconv2d_relu_compiled");
    return (relu_ ? with_relu : plain)(x, weights, bias, groups_, stride_, dilation_);
  }

  Tensor grad_input(const Tensor& grad, TensorList weights, Ints size) const override {
    static const Operator<Tensor(const Tensor&, TensorList, Ints, Ints, int64_t, int64_t)> run(
        "icconv_mm::pyconv2d_grad_input_compiled");
    return run(grad, weights, size, groups_, stride_, dilation_);
  }

  variable_list grad_weight(const Tensor& grad, const Tensor& x, TensorList weights) const override {
    static const Operator<variable_list(const Tensor&, const Tensor&, Ints, Ints, int64_t, int64_t)> run(
        "icconv_mm::pyconv2d_grad_weight_compiled");
    std::vector<int64_t> shapes;
    for (const Tensor& weight : weights) shapes.insert(shapes.end(), {weight.size(0), weight.size(2), weight.size(3)});
    return run(grad, x, shapes, groups_, stride_, dilation_);
  }

  variable_list backward(const Tensor& grad, const Tensor& x, TensorList weights, bool to_x, bool to_weights,
                         const std::string& backend) const override {
    static const Operator<variable_list(const Tensor&, const Tensor&, TensorList, Ints, int64_t, int64_t, bool, bool,
                                        c10::string_view)>
        run("icconv_mm::pyconv2d_backward");
    return run(grad, x, weights, groups_, stride_, dilation_, to_x, to_weights, backend);
  }

 private:
  std::vector<int64_t> groups_;
  int64_t stride_, dilation_;
  bool relu_;
};

// A strided tensor on the CPU or a CUDA device, without any of the keys by which others see or change what is computed.
bool is_ordinary(const Tensor& tensor) {
  using c10::DispatchKey;
  static const uint64_t ordinary =
      c10::DispatchKeySet({DispatchKey::CPU, DispatchKey::CUDA, DispatchKey::AutogradCPU, DispatchKey::AutogradCUDA,
                           DispatchKey::ADInplaceOrView, DispatchKey::AutocastCPU, DispatchKey::AutocastCUDA})
          .raw_repr();
  return (tensor.key_set().raw_repr() & ~ordinary) == 0;
}

// Whether nobody watches this thread's calls: no mode, no transform of functorch, no trace.
bool is_unwatched() {
  auto included = c10::impl::tls_local_dispatch_key_set().included_, usual = c10::default_included_set;
  return (included.raw_repr() & ~usual.raw_repr()) == 0 && !at::impl::torch_function_mode_enabled();
}

bool records_gradients() {
  return at::GradMode::is_enabled() &&
         !c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::AutogradFunctionality);
}

Tensor in_format_of(const Tensor& tensor, const Tensor& like) {
  const bool channels_last = like.is_contiguous(at::MemoryFormat::ChannelsLast) && !like.is_contiguous();
  return tensor.contiguous(channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

struct Differentiable : torch::autograd::Function<Differentiable> {
  static Tensor forward(AutogradContext* context, const Tensor& x, TensorList weights, const Optional<Tensor>& bias,
                        const c10::intrusive_ptr<Convolution>& convolution, const std::string& backend) {
    variable_list saved{x};
    saved.insert(saved.end(), weights.begin(), weights.end());
    context->save_for_backward(std::move(saved));
    context->saved_data["convolution"] = c10::IValue::make_capsule(convolution);
    context->saved_data["backend"] = backend;
    context->saved_data["bias"] = bias.has_value();
    at::AutoDispatchBelowADInplaceOrView below;
    return in_format_of(convolution->output(x, weights, bias), x);
  }

  static variable_list backward(AutogradContext* context, variable_list outer) {
    const variable_list saved = context->get_saved_variables();
    const Tensor& x = saved[0];
    const TensorList weights = TensorList(saved).slice(1);
    const size_t count = weights.size();
    variable_list results(count + 4);  // of every argument of `forward`
    const Tensor& grad = outer[0];
    if (!grad.defined()) return results;
    const auto convolution =
        c10::static_intrusive_pointer_cast<Convolution>(context->saved_data["convolution"].toCapsule());
    const bool to_x = context->needs_input_grad(0);
    bool to_weights = false;
    for (size_t i = 1; i <= count; ++i) to_weights |= context->needs_input_grad(i);
    if (records_gradients() || !is_unwatched() || !is_ordinary(grad)) {
      const auto gradients =
          convolution->backward(grad, x, weights, to_x, to_weights, context->saved_data["backend"].toStringRef());
      if (to_x) results[0] = gradients[0];
      for (size_t i = 0; to_weights && i < count; ++i) results[1 + i] = gradients[to_x + i];
    } else {
      at::AutoDispatchBelowADInplaceOrView below;
      if (to_x) results[0] = in_format_of(convolution->grad_input(grad, weights, x.sizes().slice(2)), grad);
      if (to_weights) {
        const auto gradients = convolution->grad_weight(grad, x, weights);
        for (size_t i = 0; i < count; ++i) results[1 + i] = gradients[i].contiguous();
      }
    }
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(1 + count))
      results[1 + count] = grad.sum({0, 2, 3});
    return results;
  }
};

constexpr size_t kMostAnswers = 64;  // of one layer

// What Python's chooser said of calls of one kind; it looks at nothing else of a call that fits.
struct Answer {
  std::string backend;
  c10::ScalarType dtype;
  c10::Device device;
  std::vector<int64_t> sizes;  // of the input and of each filter
  int served;                  // 1: forward, 2: both gradients
};

// A tensor or parameter of Python that is no subclass.
bool unpack(PyObject* object, Tensor& tensor) {
  if (!THPVariable_CheckTypeExact(Py_TYPE(object))) return false;
  tensor = THPVariable_Unpack(object);
  return is_ordinary(tensor);
}

#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 4
bool is_autocast(c10::DeviceType device) {
  return device == at::kCUDA ? at::autocast::is_enabled() : at::autocast::is_cpu_enabled();
}
c10::ScalarType autocast_dtype(c10::DeviceType device) {
  return device == at::kCUDA ? at::autocast::get_autocast_gpu_dtype() : at::autocast::get_autocast_cpu_dtype();
}
#else
bool is_autocast(c10::DeviceType device) { return at::autocast::is_autocast_enabled(device); }
c10::ScalarType autocast_dtype(c10::DeviceType device) { return at::autocast::get_autocast_dtype(device); }
#endif

class Prepared {
 public:
  Prepared(c10::intrusive_ptr<Convolution> convolution, bool differentiable, py::object choose)
      : convolution_(std::move(convolution)), differentiable_(differentiable), choose_(std::move(choose)) {}

  // The result, or None where the operator in Python must serve the call.
  py::object run(py::handle x, const py::sequence& weights, py::handle bias, const std::string& backend) {
    Tensor in;
    Optional<Tensor> shift;
    c10::SmallVector<Tensor, 4> filters(weights.size());
    if (!is_unwatched() || !unpack(x.ptr(), in)) return py::none();
    for (size_t i = 0; i < filters.size(); ++i)
      if (!unpack(py::object(weights[i]).ptr(), filters[i])) return py::none();
    if (!bias.is_none()) {
      Tensor tensor;
      if (!unpack(bias.ptr(), tensor)) return py::none();
      shift = tensor;
    }
    const auto device = in.device();
    if (is_autocast(device.type())) {
      const auto dtype = autocast_dtype(device.type());
      in = at::autocast::cached_cast(dtype, in, device.type());
      for (Tensor& filter : filters) filter = at::autocast::cached_cast(dtype, filter, device.type());
      if (shift) shift = at::autocast::cached_cast(dtype, *shift, device.type());
    }
    const auto alike = [&](const Tensor& tensor) {
      return tensor.scalar_type() == in.scalar_type() && tensor.device() == device;
    };
    if (!std::all_of(filters.begin(), filters.end(), alike) || (shift && !alike(*shift))) return py::none();
    if (!convolution_->fits(in, filters, shift)) return py::none();
    bool wanted = false;
    if (records_gradients()) {
      wanted = in.requires_grad() || (shift && shift->requires_grad());
      for (const Tensor& filter : filters) wanted |= filter.requires_grad();
    }
    const int served = answer(in, filters, shift, backend);
    if (!(served & 1) || (wanted && !(differentiable_ && served & 2))) return py::none();
    Tensor out;
    {
      const py::gil_scoped_release without;
      if (wanted) {
        out = Differentiable::apply(in, TensorList(filters), shift, convolution_, backend);
      } else {
        at::AutoDispatchBelowADInplaceOrView below;
        out = in_format_of(convolution_->output(in, filters, shift), in);
      }
    }
    return py::reinterpret_steal<py::object>(THPVariable_Wrap(std::move(out)));
  }

 private:
  int answer(const Tensor& x, TensorList weights, const Optional<Tensor>& bias, const std::string& backend) {
    const auto same = [&](const Answer& known) {
      if (known.backend != backend || known.dtype != x.scalar_type() || known.device != x.device()) return false;
      if (!std::equal(x.sizes().begin(), x.sizes().end(), known.sizes.begin())) return false;
      for (size_t i = 0; i < weights.size(); ++i)
        if (!std::equal(weights[i].sizes().begin(), weights[i].sizes().end(), known.sizes.begin() + 4 * (i + 1)))
          return false;
      return true;
    };
    for (const Answer& known : answers_)
      if (same(known)) return known.served;
    Answer made{backend, x.scalar_type(), x.device(), x.sizes().vec(), 0};
    for (const Tensor& weight : weights)
      made.sizes.insert(made.sizes.end(), weight.sizes().begin(), weight.sizes().end());
    made.served = choose_(x, std::vector<Tensor>(weights.begin(), weights.end()), bias).cast<int>();
    if (answers_.size() >= kMostAnswers) answers_.clear();  // images of every size
    answers_.push_back(made);
    return made.served;
  }

  c10::intrusive_ptr<Convolution> convolution_;
  bool differentiable_;
  py::object choose_;
  std::vector<Answer> answers_;  // under Python's lock
};

template <typename Kind>
std::unique_ptr<Prepared> prepare(std::vector<int64_t> table, int64_t first, int64_t second, bool relu,
                                  py::object choose) {
  return std::make_unique<Prepared>(c10::make_intrusive<Kind>(std::move(table), first, second, relu), !relu,
                                    std::move(choose));
}

}  // namespace
}  // namespace icconv_mm::python

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using icconv_mm::python::Prepared;
  namespace py = pybind11;
  py::class_<Prepared>(m, "Prepared")
      .def("__call__",
           [](Prepared& self, py::handle x, const py::sequence& weights, py::handle bias, const std::string& backend) {
             HANDLE_TH_ERRORS
             return self.run(x, weights, bias, backend);
             END_HANDLE_TH_ERRORS_PYBIND
           });
  m.def("inception", &icconv_mm::python::prepare<icconv_mm::python::Inception>);
  m.def("pyramidal", &icconv_mm::python::prepare<icconv_mm::python::Pyramidal>);
}
