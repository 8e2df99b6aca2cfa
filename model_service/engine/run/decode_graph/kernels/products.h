// Products with packed weights.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>

#include <optional>
#include <string_view>

#include "model.h"

namespace lockstep {

inline Tensor packed_product(const Tensor& x, int64_t index, int64_t size) {
  static const auto pointwise =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
          .typed<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&,
                        std::string_view, c10::List<std::optional<at::Scalar>>,
                        std::optional<std::string_view>)>();
  TORCH_CHECK(current != nullptr);
  const AllThreads threads;
  const Linear& layer = current->linears.at(index);
  if (x.numel() <= layer.plain_rows * x.size(-1)) return at::linear(x, layer.plain, layer.bias);
  return pointwise.call(x, layer.packed, layer.bias, "none",
                        c10::List<std::optional<at::Scalar>>(), "");
}

}  // namespace lockstep
