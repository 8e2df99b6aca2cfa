// Attention over slots, of any mix of single tokens and longer runs.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "model.h"
#include "segments.h"
#include "step.h"
#include "tiles.h"

namespace lockstep {

// Shortest run that is worth a tile.
constexpr int64_t TILED_TOKENS = 6;

// Tokens from which threads share the writing.
constexpr int64_t MANY_TOKENS = 64;

// Writes `states` [1, K, T, D] to the places of the step's tokens.
template <typename T>
void write(const Tensor& states, Tensor& cache, const int64_t* slots, const int64_t* positions) {
  const int64_t heads = states.size(1), count = states.size(2), size = states.size(3);
  const int64_t from_head = states.stride(1), from_token = states.stride(2);
  const int64_t to_slot = cache.stride(0), to_token = cache.stride(1);
  const T* from = states.const_data_ptr<T>();
  T* to = cache.mutable_data_ptr<T>();
#pragma omp parallel for if (count >= MANY_TOKENS)
  for (int64_t t = 0; t < count; t++)
    for (int64_t h = 0; h < heads; h++)
      std::memcpy(to + slots[t] * to_slot + positions[t] * to_token + h * size,
                  from + h * from_head + t * from_token, size * sizeof(T));
}

template <typename T, int N>
void attend(const Step<T>& step, int64_t count) {
  std::vector<int64_t> singles;
  std::vector<Run> tiled;
  for (const Run& run : runs_of(step, count)) {
    if (run.length >= TILED_TOKENS)
      tiled.push_back(run);
    else
      for (int64_t i = 0; i < run.length; i++) singles.push_back(run.start + i);
  }
  if (!singles.empty()) attend_singles<T, N>(step, singles);
  if (!tiled.empty()) attend_runs<T, N>(step, tiled);
}

template <typename T>
void attend_any(const Step<T>& step, int64_t count) {
  switch (step.size) {
#define SIZE(N) \
  case N * 16:  \
    return attend<T, N>(step, count);
    SIZE(1) SIZE(2) SIZE(3) SIZE(4) SIZE(5) SIZE(6) SIZE(7) SIZE(8) SIZE(12) SIZE(16)
#undef SIZE
    default:
      TORCH_CHECK(false, "no kernel for heads of size ", step.size);
  }
}

// A view whose last dimension is dense, which is all that the kernels ask for.
inline Tensor dense_rows(const Tensor& states) {
  return states.stride(-1) == 1 ? states : states.contiguous();
}

// Writes keys and values `[1, K, T, D]` to their places and attends with `query` [1, H, T, D].
// Returns [1, T, H, D].
inline Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value,
                        const Tensor& slots, const Tensor& positions, int64_t layer, double scale,
                        int64_t window, double softcap, const std::optional<Tensor>& sinks) {
  TORCH_CHECK(current != nullptr);
  const AllThreads threads;
  Tensor& keys = current->keys.at(layer);
  Tensor& values = current->values.at(layer);
  const int64_t heads = keys.size(2), count = query.size(2), size = keys.size(3);
  TORCH_CHECK(query.size(0) == 1 && query.size(1) % heads == 0 && query.size(3) == size);
  TORCH_CHECK(key.size(1) == heads && value.size(1) == heads && values.size(3) == size);
  TORCH_CHECK(query.scalar_type() == keys.scalar_type() && key.scalar_type() == keys.scalar_type());
  TORCH_CHECK(value.scalar_type() == values.scalar_type() && slots.numel() == count);
  TORCH_CHECK(positions.numel() == count && slots.is_contiguous() && positions.is_contiguous());
  const int64_t* const slot_data = slots.const_data_ptr<int64_t>();
  const int64_t* const position_data = positions.const_data_ptr<int64_t>();
  for (int64_t t = 0; t < count; t++) {
    TORCH_CHECK(0 <= slot_data[t] && slot_data[t] < keys.size(0));
    TORCH_CHECK(0 <= position_data[t] && position_data[t] < keys.size(1));
  }
  Tensor out = at::empty({1, count, query.size(1), size}, query.options());
  Tensor sink_values;
  if (sinks) sink_values = sinks->to(at::kFloat).contiguous();
  const float* const sink_data = sinks ? sink_values.const_data_ptr<float>() : nullptr;
  const Tensor queries = dense_rows(query);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    write<T>(dense_rows(key), keys, slot_data, position_data);
    write<T>(dense_rows(value), values, slot_data, position_data);
    const Step<T> step{.query = queries.const_data_ptr<T>(),
                       .keys = keys.const_data_ptr<T>(),
                       .values = values.const_data_ptr<T>(),
                       .out = out.mutable_data_ptr<T>(),
                       .sinks = sink_data,
                       .slots = slot_data,
                       .positions = position_data,
                       .heads = heads,
                       .groups = query.size(1) / heads,
                       .query_head = queries.stride(1),
                       .query_token = queries.stride(2),
                       .key_slot = keys.stride(0),
                       .key_token = keys.stride(1),
                       .value_slot = values.stride(0),
                       .value_token = values.stride(1),
                       .size = size,
                       .window = window,
                       .scale = static_cast<float>(scale),
                       .softcap = static_cast<float>(softcap)};
    attend_any(step, count);
  };
  if (query.scalar_type() == at::kBFloat16)
    run(c10::BFloat16{});
  else
    run(float{});
  return out;
}

}  // namespace lockstep
