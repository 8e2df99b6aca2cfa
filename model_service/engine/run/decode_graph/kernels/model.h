// What a step runs on: the products and the KV cache of a model, named by number so that they are no
// part of a graph, and threads.

#pragma once

#include <ATen/core/Tensor.h>
#include <omp.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

namespace lockstep {

using at::Tensor;

// The product with the weight, and bias, of a linear layer or of several.
class Product {
 public:
  virtual ~Product() = default;
  virtual Tensor multiply(const Tensor& x) const = 0;
};

struct Model {
  std::vector<std::unique_ptr<Product>> products;
  std::vector<Tensor> keys;
  std::vector<Tensor> values;
};

inline std::unordered_map<int64_t, std::unique_ptr<Model>> models;
inline int64_t next_model = 0;
inline Model* current = nullptr;  // one thread runs steps

inline Model& model_of(int64_t handle) {
  auto found = models.find(handle);
  TORCH_CHECK(found != models.end(), "no model ", handle);
  return *found->second;
}

inline int64_t new_model() {
  models.emplace(next_model, std::make_unique<Model>());
  return next_model++;
}

inline void free_model(int64_t handle) {
  if (current == &model_of(handle)) current = nullptr;
  models.erase(handle);
}

inline void add_layer(int64_t handle, const Tensor& keys, const Tensor& values) {
  for (const Tensor& cache : {keys, values}) {
    TORCH_CHECK(cache.dim() == 4 && cache.is_contiguous() && cache.device().is_cpu());
  }
  model_of(handle).keys.push_back(keys);
  model_of(handle).values.push_back(values);
}

// Threads of the operators. The code between them has fewer in a step of few tokens.
inline int num_threads = 1;

inline void begin(int64_t handle, bool alone) {
  if (current == nullptr) num_threads = omp_get_max_threads();
  current = &model_of(handle);
  if (alone) omp_set_num_threads(1);
}

inline void end() {
  current = nullptr;
  omp_set_num_threads(num_threads);
}

// All threads, for as long as it exists.
class AllThreads {
 public:
  AllThreads() : before_(omp_get_max_threads()) { omp_set_num_threads(num_threads); }
  ~AllThreads() { omp_set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace lockstep
