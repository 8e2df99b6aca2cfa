// The operators of a step, by name. One source includes all, which compiles in half the time.

#include <ATen/record_function.h>
#include <torch/csrc/inductor/aoti_torch/utils.h>
#include <torch/library.h>

#include "attention.h"
#include "model.h"
#include "products.h"

TORCH_LIBRARY(lockstep, library) {
  library.def("new_model() -> int", &lockstep::new_model);
  library.def("free_model(int model) -> ()", &lockstep::free_model);
  library.def(
      "add_reordered(int model, Tensor packed, Tensor? plain, Tensor? bias, int plain_rows) -> ()",
      &lockstep::add_reordered);
  library.def(
      "add_panels(int model, Tensor panels, Tensor? steps, Tensor? bias, int size) -> ()",
      &lockstep::add_panels);
  library.def("add_layer(int model, Tensor keys, Tensor values) -> ()", &lockstep::add_layer);
  library.def("begin(int model, bool alone) -> ()", &lockstep::begin);
  library.def("end() -> ()", &lockstep::end);
  library.def("packed_product(Tensor x, int index, int size) -> Tensor");
  library.def(
      "panel_product(Tensor x, Tensor panels, Tensor? steps, Tensor? bias, int size) -> Tensor");
  library.def(
      "attention(Tensor query, Tensor key, Tensor value, Tensor slots, Tensor positions, "
      "int layer, float scale, int window, float softcap, Tensor? sinks) -> Tensor");
}

TORCH_LIBRARY_IMPL(lockstep, CPU, library) {
  library.impl("packed_product", &lockstep::packed_product);
  library.impl("panel_product", &lockstep::panel_product);
  library.impl("attention", &lockstep::attention);
}

// What compiled graphs call, past the dispatcher; `operators.SHIMS` declares it. An exception passes
// through them as it is: as a code it would lose its message.
extern "C" {

using torch::aot_inductor::new_tensor_handle;
using torch::aot_inductor::tensor_handle_to_tensor_pointer;

AOTITorchError aoti_torch_cpu_packed_product(AtenTensorHandle x, int64_t index, int64_t size,
                                             AtenTensorHandle* product) {
  RECORD_FUNCTION("lockstep::packed_product", {});
  const auto tensor = tensor_handle_to_tensor_pointer;
  *product = new_tensor_handle(lockstep::packed_product(*tensor(x), index, size));
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_cpu_attention(AtenTensorHandle query, AtenTensorHandle key,
                                        AtenTensorHandle value, AtenTensorHandle slots,
                                        AtenTensorHandle positions, int64_t layer, double scale,
                                        int64_t window, double softcap, AtenTensorHandle* sinks,
                                        AtenTensorHandle* out) {
  RECORD_FUNCTION("lockstep::attention", {});
  const auto tensor = tensor_handle_to_tensor_pointer;
  const auto given = torch::aot_inductor::pointer_to_optional<at::Tensor>(sinks);
  *out = new_tensor_handle(lockstep::attention(*tensor(query), *tensor(key), *tensor(value),
                                               *tensor(slots), *tensor(positions), layer, scale,
                                               window, softcap, given));
  return AOTI_TORCH_SUCCESS;
}

}  // extern "C"
