// Products with the weights of linear layers, in the layouts that they are kept in.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <optional>
#include <string_view>
#include <vector>

#include "int8.h"
#include "model.h"
#include "panels.h"

namespace lockstep {

// With a weight that oneDNN has reordered, or with the plain one where that is quicker.
class ReorderedProduct : public Product {
 public:
  ReorderedProduct(const Tensor& packed, const std::optional<Tensor>& plain,
                   const std::optional<Tensor>& bias, int64_t plain_rows)
      : packed_(packed), plain_(plain), bias_(bias), plain_rows_(plain_rows) {}

  Tensor multiply(const Tensor& x) const override {
    static const auto product =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
            .typed<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&,
                          std::string_view, c10::List<std::optional<at::Scalar>>,
                          std::optional<std::string_view>)>();
    if (plain_ && x.numel() <= plain_rows_ * x.size(-1)) return at::linear(x, *plain_, bias_);
    return product.call(x, packed_, bias_, "none", c10::List<std::optional<at::Scalar>>(), "");
  }

 private:
  Tensor packed_;
  std::optional<Tensor> plain_, bias_;
  int64_t plain_rows_;
};

// `x` [.., K] float32 or bfloat16 times `panels`, to [.., N] of the same type. Panels of int8 have
// a step for each of their rows; `bias`, if there is one, has a number for each.
inline Tensor panel_product(const Tensor& x, const Tensor& panels,
                            const std::optional<Tensor>& steps, const std::optional<Tensor>& bias,
                            int64_t size) {
  const int64_t width = x.size(-1), rows = x.numel() / width;
  const int64_t padded = panels.numel() / (panels.size(0) * PANEL);
  TORCH_CHECK(panels.is_contiguous() && panels.size(0) == (size + PANEL - 1) / PANEL);
  for (const auto& row : {steps, bias})
    TORCH_CHECK(!row || (row->scalar_type() == at::kFloat && row->numel() == panels.size(0) * PANEL));
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = size;
  Tensor out = at::empty(sizes, x.options());
  const Tensor dense = x.contiguous();
  const float* const biases = bias ? bias->const_data_ptr<float>() : nullptr;
  const auto run = [&](auto number, auto weight) {
    using Number = decltype(number);
    TORCH_CHECK(padded == width);
    product(dense.const_data_ptr<Number>(), rows, width,
            panels.const_data_ptr<decltype(weight)>(), biases, out.mutable_data_ptr<Number>(),
            size);
  };
#ifdef __AVX512VNNI__
  const auto run_int8 = [&](auto number) {
    using Number = decltype(number);
    TORCH_CHECK(padded == (width + GROUP - 1) / GROUP * GROUP);
    product(dense.const_data_ptr<Number>(), rows, width, panels.const_data_ptr<uint8_t>(),
            steps->const_data_ptr<float>(), biases, out.mutable_data_ptr<Number>(), size);
  };
  if (steps && x.scalar_type() == at::kFloat) return run_int8(float{}), out;
  if (steps && x.scalar_type() == at::kBFloat16) return run_int8(c10::BFloat16{}), out;
#endif
#ifdef __AVX512BF16__
  if (!steps && x.scalar_type() == at::kBFloat16)
    return run(c10::BFloat16{}, c10::BFloat16{}), out;
#endif
  TORCH_CHECK(!steps && x.scalar_type() == at::kFloat, "no product of ", x.scalar_type(), " and ",
              panels.scalar_type(), " on this processor");
  switch (panels.scalar_type()) {
    case at::kFloat:
      return run(float{}, float{}), out;
    case at::kBFloat16:
      return run(float{}, c10::BFloat16{}), out;
    case at::kHalf:
      return run(float{}, c10::Half{}), out;
    default:
      TORCH_CHECK(false, "no panels of ", panels.scalar_type());
  }
}

class PanelProduct : public Product {
 public:
  PanelProduct(const Tensor& panels, const std::optional<Tensor>& steps,
               const std::optional<Tensor>& bias, int64_t size)
      : panels_(panels), steps_(steps), bias_(bias), size_(size) {}

  Tensor multiply(const Tensor& x) const override {
    return panel_product(x, panels_, steps_, bias_, size_);
  }

 private:
  Tensor panels_;
  std::optional<Tensor> steps_, bias_;
  int64_t size_;
};

inline void add_reordered(int64_t handle, const Tensor& packed, const std::optional<Tensor>& plain,
                          const std::optional<Tensor>& bias, int64_t plain_rows) {
  model_of(handle).products.push_back(
      std::make_unique<ReorderedProduct>(packed, plain, bias, plain_rows));
}

inline void add_panels(int64_t handle, const Tensor& panels, const std::optional<Tensor>& steps,
                       const std::optional<Tensor>& bias, int64_t size) {
  model_of(handle).products.push_back(std::make_unique<PanelProduct>(panels, steps, bias, size));
}

inline Tensor packed_product(const Tensor& x, int64_t index, int64_t size) {
  TORCH_CHECK(current != nullptr);
  const AllThreads threads;
  return current->products.at(index)->multiply(x);
}

}  // namespace lockstep
