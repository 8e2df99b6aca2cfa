// Attention of single tokens: each over its own keys, cut into segments.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "lanes.h"
#include "step.h"

namespace lockstep {

// Keys of one task. Fixed, so that a row's sums are added up in the same order in every batch.
constexpr int64_t SEGMENT = 256;

// Keys that are widened to float at a time.
constexpr int64_t BLOCK = 16;

// What G queries have seen of one segment: `sums` [G, D] of weighted values, the largest score
// and the sum of weights.
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
void attend_segment(const Step<T>& step, const float* queries, const T* keys, const T* values,
                    int64_t count, Partial out, float* scores) {
  constexpr int D = N * 16;
  float block[BLOCK][D] = {};
  for (int64_t first = 0; first < count; first += BLOCK) {
    widen<T, N>(keys + first * step.key_token, step.key_token, std::min(BLOCK, count - first),
                block);
    for (int64_t g = 0; g < step.groups; g++) {
      Lanes dots[BLOCK];
      for (int i = 0; i < BLOCK; i++) {
        dots[i] = load(queries + g * D) * load(block[i]);
        for (int n = 1; n < N; n++)
          dots[i] += load(queries + g * D + n * 16) * load(block[i] + n * 16);
      }
      for (int width = BLOCK / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) dots[i] = add_neighbors(dots[2 * i], dots[2 * i + 1]);
      store(scores + g * SEGMENT + first, dots[0] * step.scale);
    }
  }
  for (int64_t g = 0; g < step.groups; g++) {
    float* score = scores + g * SEGMENT;
    if (step.softcap > 0)
      for (int64_t i = 0; i < count; i++)
        score[i] = std::tanh(score[i] / step.softcap) * step.softcap;
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
  std::fill(out.sums, out.sums + step.groups * D, 0.0f);
  for (int64_t first = 0; first < count; first += BLOCK) {
    const int64_t in_block = std::min(BLOCK, count - first);
    widen<T, N>(values + first * step.value_token, step.value_token, in_block, block);
    for (int64_t g = 0; g < step.groups; g++) {
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

template <typename T>
int64_t segments_of(const Step<T>& step, int64_t position) {
  return (position + 1 - step.first_seen(position) + SEGMENT - 1) / SEGMENT;
}

// Attends for the tokens of a step with the given numbers.
template <typename T, int N>
void attend_singles(const Step<T>& step, const std::vector<int64_t>& tokens) {
  constexpr int64_t D = N * 16;
  const int64_t count = tokens.size(), heads = step.heads, groups = step.groups;
  int64_t segments = 1;
  for (int64_t t : tokens) segments = std::max(segments, segments_of(step, step.positions[t]));
  const int64_t tasks = count * heads * segments;
  std::vector<float> sums(tasks * groups * D), largest(tasks * groups), weights(tasks * groups);
#pragma omp parallel
  {
    std::vector<float> queries(groups * D), scores(groups * SEGMENT);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tasks; task++) {
      const int64_t t = tokens[task / (heads * segments)], h = task / segments % heads;
      const int64_t end = step.positions[t] + 1;
      const int64_t first = step.first_seen(step.positions[t]) + task % segments * SEGMENT;
      if (first >= end) continue;
      for (int64_t g = 0; g < groups; g++)
        for (int n = 0; n < N; n++)
          store(&queries[g * D + n * 16], load(step.query_of(t, h * groups + g) + n * 16));
      attend_segment<T, N>(
          step, queries.data(), step.key_of(t, first, h), step.value_of(t, first, h),
          std::min(SEGMENT, end - first),
          {&sums[task * groups * D], &largest[task * groups], &weights[task * groups]},
          scores.data());
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < count * heads; row++) {
      const int64_t t = tokens[row / heads], h = row % heads;
      const int64_t used = segments_of(step, step.positions[t]);
      for (int64_t g = 0; g < groups; g++) {
        const int64_t head = h * groups + g;
        float most = step.sinks ? step.sinks[head] : -std::numeric_limits<float>::infinity();
        for (int64_t s = 0; s < used; s++) {
          const float value = largest[(row * segments + s) * groups + g];
          most = value > most || std::isnan(value) ? value : most;
        }
        float total = step.sinks ? std::exp(step.sinks[head] - most) : 0;
        Lanes joined[N] = {};
        for (int64_t s = 0; s < used; s++) {
          const int64_t part = (row * segments + s) * groups + g;
          const float factor = std::exp(largest[part] - most);
          total += factor * weights[part];
          for (int n = 0; n < N; n++) joined[n] += factor * load(&sums[part * D + n * 16]);
        }
        for (int n = 0; n < N; n++) store(step.out_of(t, head) + n * 16, joined[n] / total);
      }
    }
  }
}

}  // namespace lockstep
