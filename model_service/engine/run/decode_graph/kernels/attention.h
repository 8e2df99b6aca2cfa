// Attention over slots.
//
// A step has T tokens, each of one slot and with a position in it. Keys and values lie in
// [slots, max_length, K, D], one pair of tensors per layer. A token sees the keys of its own slot
// up to its own position and nothing else, so no padding, mask or order of slots is needed, and a
// row's result does not depend on the rows beside it.
//
// H: query heads, K: key-value heads, G = H / K, D: head size, T: tokens of the step.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "lanes.h"
#include "model.h"

namespace lockstep {

// Keys of one task. Fixed, so that a row's sums are added up in the same order in every batch.
constexpr int64_t SEGMENT = 256;

// Keys that are widened to float at a time.
constexpr int64_t BLOCK = 16;

struct Options {
  int64_t groups;
  int64_t key_stride, value_stride;  // from one token to the next
  float scale, softcap;
};

// What G queries have seen of one segment: `sums` [G, D] of weighted values, the largest score
// and the sum of weights. Segments are joined by `join`.
struct Partial {
  float* sums;
  float* largest;
  float* weight;
};

template <typename T, int N>
inline void widen(const T* from, int64_t stride, int64_t count, float (&to)[BLOCK][N * 16]) {
  for (int64_t i = 0; i < count; i++) {
    const T* row = from + i * stride;
    for (int n = 0; n < N; n++) {
      __builtin_prefetch(row + BLOCK * stride + n * 16);
      store(&to[i][n * 16], load(row + n * 16));
    }
  }
}

template <typename T, int N>
void attend_segment(const Options& options, const float* queries, const T* keys, const T* values,
                    int64_t count, Partial out, float* scores) {
  constexpr int D = N * 16;
  float block[BLOCK][D] = {};
  for (int64_t first = 0; first < count; first += BLOCK) {
    widen<T, N>(keys + first * options.key_stride, options.key_stride,
                std::min(BLOCK, count - first), block);
    for (int64_t g = 0; g < options.groups; g++) {
      Lanes dots[BLOCK];
      for (int i = 0; i < BLOCK; i++) {
        dots[i] = load(queries + g * D) * load(block[i]);
        for (int n = 1; n < N; n++) dots[i] += load(queries + g * D + n * 16) * load(block[i] + n * 16);
      }
      for (int width = BLOCK / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) dots[i] = add_neighbors(dots[2 * i], dots[2 * i + 1]);
      store(scores + g * SEGMENT + first, dots[0] * options.scale);
    }
  }
  for (int64_t g = 0; g < options.groups; g++) {
    float* score = scores + g * SEGMENT;
    if (options.softcap > 0)
      for (int64_t i = 0; i < count; i++)
        score[i] = std::tanh(score[i] / options.softcap) * options.softcap;
    float largest = -std::numeric_limits<float>::infinity(), weight = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < count; i++) largest = score[i] > largest ? score[i] : largest;
#pragma omp simd reduction(+ : weight)
    for (int64_t i = 0; i < count; i++) {
      score[i] = exp_negative(score[i] - largest);
      weight += score[i];
    }
    out.largest[g] = largest;
    out.weight[g] = weight;
  }
  std::fill(out.sums, out.sums + options.groups * D, 0.0f);
  for (int64_t first = 0; first < count; first += BLOCK) {
    const int64_t in_block = std::min(BLOCK, count - first);
    widen<T, N>(values + first * options.value_stride, options.value_stride, in_block, block);
    for (int64_t g = 0; g < options.groups; g++) {
      Lanes sums[N];
      for (int n = 0; n < N; n++) sums[n] = load(out.sums + g * D + n * 16);
      for (int64_t i = 0; i < in_block; i++) {
        const Lanes weight = splat(scores[g * SEGMENT + first + i]);
        for (int n = 0; n < N; n++) sums[n] += weight * load(block[i] + n * 16);
      }
      for (int n = 0; n < N; n++) store(out.sums + g * D + n * 16, sums[n]);
    }
  }
}

// Keys [first, end) that the token at `position` sees.
struct Span {
  int64_t first, end;
};

inline Span span_of(int64_t position, int64_t window) {
  const int64_t end = position + 1;
  return {window > 0 ? std::max<int64_t>(0, end - window) : 0, end};
}

// Writes `states` [1, K, T, D] to the places of the step's tokens.
template <typename T>
void write(const Tensor& states, Tensor& cache, const int64_t* slots, const int64_t* positions) {
  const int64_t heads = states.size(1), count = states.size(2), size = states.size(3);
  const T* from = states.const_data_ptr<T>();
  T* to = cache.mutable_data_ptr<T>();
  for (int64_t t = 0; t < count; t++)
    for (int64_t h = 0; h < heads; h++)
      std::memcpy(to + slots[t] * cache.stride(0) + positions[t] * cache.stride(1) + h * size,
                  from + h * states.stride(1) + t * states.stride(2), size * sizeof(T));
}

template <typename T, int N>
void attend(const Tensor& query, const Tensor& keys, const Tensor& values, const int64_t* slots,
            const int64_t* positions, int64_t window, const Options& options, const float* sinks,
            Tensor& out) {
  constexpr int64_t D = N * 16;
  const int64_t count = query.size(2), heads = keys.size(2), groups = options.groups;
  int64_t segments = 1;
  for (int64_t t = 0; t < count; t++) {
    const Span span = span_of(positions[t], window);
    segments = std::max(segments, (span.end - span.first + SEGMENT - 1) / SEGMENT);
  }
  const int64_t tasks = count * heads * segments;
  std::vector<float> sums(tasks * groups * D), largest(tasks * groups), weights(tasks * groups);
  const T* const from = query.const_data_ptr<T>();
  const T* const key_data = keys.const_data_ptr<T>();
  const T* const value_data = values.const_data_ptr<T>();
  T* const to = out.mutable_data_ptr<T>();
#pragma omp parallel
  {
    std::vector<float> queries(groups * D), scores(groups * SEGMENT);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tasks; task++) {
      const int64_t t = task / (heads * segments), h = task / segments % heads;
      const Span span = span_of(positions[t], window);
      const int64_t first = span.first + task % segments * SEGMENT;
      if (first >= span.end) continue;
      for (int64_t g = 0; g < groups; g++)
        for (int n = 0; n < N; n++)
          store(&queries[g * D + n * 16], load(from + (h * groups + g) * query.stride(1) +
                                               t * query.stride(2) + n * 16));
      attend_segment<T, N>(
          options, queries.data(),
          key_data + slots[t] * keys.stride(0) + first * keys.stride(1) + h * D,
          value_data + slots[t] * values.stride(0) + first * values.stride(1) + h * D,
          std::min(SEGMENT, span.end - first),
          {&sums[task * groups * D], &largest[task * groups], &weights[task * groups]},
          scores.data());
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < count * heads; row++) {
      const int64_t t = row / heads, h = row % heads;
      const Span span = span_of(positions[t], window);
      const int64_t used = (span.end - span.first + SEGMENT - 1) / SEGMENT;
      for (int64_t g = 0; g < groups; g++) {
        const int64_t head = h * groups + g;
        float most = sinks ? sinks[head] : -std::numeric_limits<float>::infinity();
        for (int64_t s = 0; s < used; s++) {
          const float value = largest[(row * segments + s) * groups + g];
          most = value > most || std::isnan(value) ? value : most;
        }
        float total = sinks ? std::exp(sinks[head] - most) : 0;
        Lanes joined[N] = {};
        for (int64_t s = 0; s < used; s++) {
          const int64_t part = (row * segments + s) * groups + g;
          const float factor = std::exp(largest[part] - most);
          total += factor * weights[part];
          for (int n = 0; n < N; n++) joined[n] += factor * load(&sums[part * D + n * 16]);
        }
        T* const result = to + (t * heads * groups + head) * D;
        for (int n = 0; n < N; n++)
          for (int i = 0; i < 16; i++) result[n * 16 + i] = static_cast<T>(joined[n][i] / total);
      }
    }
  }
}

template <typename T>
void attend_any(int64_t size, const Tensor& query, const Tensor& keys, const Tensor& values,
                const int64_t* slots, const int64_t* positions, int64_t window,
                const Options& options, const float* sinks, Tensor& out) {
  switch (size) {
#define SIZE(N) \
  case N * 16:  \
    return attend<T, N>(query, keys, values, slots, positions, window, options, sinks, out);
    SIZE(1) SIZE(2) SIZE(3) SIZE(4) SIZE(5) SIZE(6) SIZE(7) SIZE(8) SIZE(12) SIZE(16)
#undef SIZE
    default:
      TORCH_CHECK(false, "no kernel for heads of size ", size);
  }
}

// A view whose last dimension is dense, which is all that the kernels ask for.
inline Tensor dense_rows(const Tensor& states) {
  return states.stride(-1) == 1 ? states : states.contiguous();
}

// Writes keys and values `[1, K, T, D]` to their places and attends with `query` [1, H, T, D].
// Returns [1, T, H, D].
inline Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& slots,
                 const Tensor& positions, int64_t layer, double scale, int64_t window,
                 double softcap, const std::optional<Tensor>& sinks) {
  TORCH_CHECK(current != nullptr);
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
  const Options options{query.size(1) / heads, keys.stride(1), values.stride(1),
                        static_cast<float>(scale), static_cast<float>(softcap)};
  Tensor sink_values;
  if (sinks) sink_values = sinks->to(at::kFloat).contiguous();
  const float* const sink_data = sinks ? sink_values.const_data_ptr<float>() : nullptr;
  const Tensor queries = dense_rows(query);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    write<T>(dense_rows(key), keys, slot_data, position_data);
    write<T>(dense_rows(value), values, slot_data, position_data);
    attend_any<T>(size, queries, keys, values, slot_data, position_data, window, options,
                  sink_data, out);
  };
  if (query.scalar_type() == at::kBFloat16)
    run(c10::BFloat16{});
  else
    run(float{});
  return out;
}

}  // namespace lockstep
