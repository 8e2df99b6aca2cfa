// What attention reads and writes in one layer of a step.
//
// A step has T tokens, each of one slot and with a position in it. Keys and values lie in
// [slots, max_length, K, D], one pair of tensors per layer. A token sees the keys of its own slot
// up to its own position and nothing else, so no padding, mask or order of slots is needed, and a
// row's result does not depend on the rows beside it.
//
// H: query heads, K: key-value heads, G = H / K, D: head size, T: tokens of the step.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lockstep {

template <typename T>
struct Step {
  const T *query, *keys, *values;
  T* out;                               // [T, H, D]
  const float* sinks;                   // [H], or null
  const int64_t *slots, *positions;     // [T]
  int64_t heads, groups;                // K and G
  int64_t query_head, query_token;      // strides, as those below
  int64_t key_slot, key_token;
  int64_t value_slot, value_token;
  int64_t size;                         // D
  int64_t window;                       // tokens that a token sees, itself included; 0 for all
  float scale, softcap;

  const T* query_of(int64_t t, int64_t head) const {
    return query + t * query_token + head * query_head;
  }

  const T* key_of(int64_t t, int64_t position, int64_t head) const {
    return keys + slots[t] * key_slot + position * key_token + head * size;
  }

  const T* value_of(int64_t t, int64_t position, int64_t head) const {
    return values + slots[t] * value_slot + position * value_token + head * size;
  }

  T* out_of(int64_t t, int64_t head) const { return out + (t * heads * groups + head) * size; }

  // The first key that the token at `position` sees.
  int64_t first_seen(int64_t position) const {
    return window > 0 ? std::max<int64_t>(0, position + 1 - window) : 0;
  }
};

// Tokens [start, start + length) of a step: of one slot, at consecutive positions.
struct Run {
  int64_t start, length;
};

template <typename T>
std::vector<Run> runs_of(const Step<T>& step, int64_t count) {
  std::vector<Run> runs;
  for (int64_t t = 0; t < count; t++) {
    if (t > 0 && step.slots[t] == step.slots[t - 1] &&
        step.positions[t] == step.positions[t - 1] + 1)
      runs.back().length++;
    else
      runs.push_back({t, 1});
  }
  return runs;
}

}  // namespace lockstep
