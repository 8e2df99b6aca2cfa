// The operators of a step, by name. One source includes all, which compiles in half the time.

#include <torch/library.h>

#include "attention.h"
#include "model.h"
#include "products.h"

TORCH_LIBRARY(lockstep, library) {
  library.def("new_model() -> int", &lockstep::new_model);
  library.def("free_model(int model) -> ()", &lockstep::free_model);
  library.def(
      "add_linear(int model, Tensor packed, Tensor plain, Tensor? bias, int plain_rows) -> ()",
      &lockstep::add_linear);
  library.def("add_layer(int model, Tensor keys, Tensor values) -> ()", &lockstep::add_layer);
  library.def("begin(int model, bool alone) -> ()", &lockstep::begin);
  library.def("end() -> ()", &lockstep::end);
  library.def("linear(Tensor x, int index, int size) -> Tensor");
  library.def(
      "attention(Tensor query, Tensor key, Tensor value, Tensor slots, Tensor positions, "
      "int layer, float scale, int window, float softcap, Tensor? sinks) -> Tensor");
}

TORCH_LIBRARY_IMPL(lockstep, CPU, library) {
  library.impl("linear", &lockstep::linear);
  library.impl("attention", &lockstep::attention);
}
