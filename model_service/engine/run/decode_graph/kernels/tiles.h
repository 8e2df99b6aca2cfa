// Attention of runs: tiles of queries against blocks of keys.
//
// A lane is a query, so what one query sees, its largest score and its sums never mix with those
// of another, and nothing is added up across lanes. Blocks of keys begin at the same places
// whatever the run, and a block of which a query sees nothing changes nothing for it: its result
// does not depend on how a prompt is cut into runs.
//
// Products are of words of 32 bits: a float32, or two of bfloat16, whose products both go to the
// same sum in float32.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "lanes.h"
#include "step.h"

namespace lockstep {

constexpr int64_t QUERIES = 64;  // of a tile
constexpr int64_t KEYS = 64;     // of a block

template <typename T>
constexpr int64_t PER_WORD = sizeof(uint32_t) / sizeof(T);

// Words that are added up before they are added to what was there: long sums lose less that way.
constexpr int64_t DEPTH = 32;

// c [rows, QUERIES] += a [rows, depth] * b [depth, QUERIES]. Rows come in multiples of 4.
template <typename T>
inline void multiply(const uint32_t* a, int64_t a_row, int64_t a_depth, const uint32_t* b,
                     int64_t rows, int64_t depth, float* c) {
  constexpr int R = 4, C = QUERIES / 16;
  for (int64_t first = 0; first < depth; first += DEPTH)
    for (int64_t row = 0; row < rows; row += R) {
      Lanes sums[R][C] = {};
      for (int64_t d = first; d < std::min(first + DEPTH, depth); d++) {
        Words right[C];
        for (int n = 0; n < C; n++) right[n] = load(b + d * QUERIES + n * 16);
        for (int r = 0; r < R; r++) {
          const Words left = Words{} + a[(row + r) * a_row + d * a_depth];
          for (int n = 0; n < C; n++) sums[r][n] = multiply_add<T>(sums[r][n], left, right[n]);
        }
      }
      for (int r = 0; r < R; r++)
        for (int n = 0; n < C; n++) {
          float* const sum = c + (row + r) * QUERIES + n * 16;
          store(sum, load(sum) + sums[r][n]);
        }
    }
}

// Queries of one key-value head, and what they have seen. Rows are tokens times groups.
template <typename T, int N>
class Tile {
 public:
  // Takes the queries of rows [first, first + count) of a run.
  void begin(const Step<T>& step, Run run, int64_t head, int64_t first, int64_t count) {
    std::memset(sums_, 0, sizeof(sums_));
    for (int64_t lane = 0; lane < QUERIES; lane++) {
      const int64_t row = first + std::min(lane, count - 1);  // what is over repeats the last
      const int64_t t = run.start + row / step.groups, h = head * step.groups + row % step.groups;
      positions_[lane] = static_cast<int32_t>(step.positions[t]);
      largest_[lane] = step.sinks ? step.sinks[h] : std::numeric_limits<float>::lowest();
      totals_[lane] = step.sinks ? 1 : 0;
      queries_[lane] = step.query_of(t, h);
      outs_[lane] = lane < count ? step.out_of(t, h) : nullptr;
    }
    for (int64_t lane = 0; lane < QUERIES; lane += 16)
      for (int64_t word = 0; word < WORDS; word += 16) {
        Words square[16] = {};
        const int64_t width = std::min<int64_t>(16, WORDS - word);
        for (int i = 0; i < 16; i++)
          std::memcpy(&square[i], queries_[lane + i] + word * PER_WORD<T>,
                      width * sizeof(uint32_t));
        transpose(square);
        for (int i = 0; i < width; i++) store(&query_[word + i][lane], square[i]);
      }
  }

  // Attends over all that the queries see.
  void attend(const Step<T>& step, int64_t t, int64_t head) {
    const int64_t end = positions_[QUERIES - 1] + 1;
    for (int64_t first = step.first_seen(positions_[0]) / KEYS * KEYS; first < end; first += KEYS) {
      const int64_t count = std::min(KEYS, end - first);
      read_keys(step.key_of(t, first, head), step.key_token, count);
      std::memset(scores_, 0, sizeof(scores_));
      multiply<T>(&keys_[0][0], WORDS, 1, &query_[0][0], KEYS, WORDS, &scores_[0][0]);
      weigh(step, static_cast<int32_t>(first));
      read_values(step.value_of(t, first, head), step.value_token, count);
      multiply<T>(&values_[0][0], 1, D, &weights_[0][0], D, KEYS / PER_WORD<T>, &sums_[0][0]);
    }
  }

  // Writes the results.
  void end() {
    for (int64_t lane = 0; lane < QUERIES; lane += 16)
      for (int64_t d = 0; d < D; d += 16) {
        Words square[16];
        for (int i = 0; i < 16; i++)
          square[i] = as_words(load(&sums_[d + i][lane]) / load(&totals_[lane]));
        transpose(square);
        for (int i = 0; i < 16 && outs_[lane + i]; i++) store(outs_[lane + i] + d, as_lanes(square[i]));
      }
  }

 private:
  static constexpr int64_t D = N * 16, WORDS = D / PER_WORD<T>;

  void read_keys(const T* from, int64_t stride, int64_t count) {
    for (int64_t key = 0; key < count; key++)
      std::memcpy(keys_[key], from + key * stride, D * sizeof(T));
    std::memset(&keys_[0][0] + count * WORDS, 0, (KEYS - count) * D * sizeof(T));
  }

  void read_values(const T* from, int64_t stride, int64_t count) {
    static const T zeros[D] = {};
    for (int64_t key = 0; key < KEYS; key += PER_WORD<T>) {
      const T* rows[2] = {key < count ? from + key * stride : zeros,
                          key + 1 < count ? from + (key + 1) * stride : zeros};
      for (int64_t d = 0; d < D; d += 16)
        store(&values_[key / PER_WORD<T>][d], join<T>(load(rows[0] + d), load(rows[1] + d)));
    }
  }

  // Turns the scores of keys from `first` on into weights.
  void weigh(const Step<T>& step, int32_t first) {
    const float hidden = -std::numeric_limits<float>::infinity();
    const int32_t window = step.window > 0 ? step.window : std::numeric_limits<int32_t>::max();
    alignas(64) float factors[QUERIES];
    std::copy(largest_, largest_ + QUERIES, factors);
    for (int32_t key = 0; key < KEYS; key++) {
      float* const scores = scores_[key];
#pragma omp simd
      for (int lane = 0; lane < QUERIES; lane++) scores[lane] *= step.scale;
      if (step.softcap > 0)
        for (int lane = 0; lane < QUERIES; lane++)
          scores[lane] = std::tanh(scores[lane] / step.softcap) * step.softcap;
#pragma omp simd
      for (int lane = 0; lane < QUERIES; lane++) {
        const int32_t behind = positions_[lane] - (first + key);
        scores[lane] = behind < 0 || behind >= window ? hidden : scores[lane];
        largest_[lane] = scores[lane] > largest_[lane] ? scores[lane] : largest_[lane];
      }
    }
    bool changed = false;
#pragma omp simd reduction(| : changed)
    for (int lane = 0; lane < QUERIES; lane++) {
      changed |= factors[lane] != largest_[lane];
      factors[lane] = exp_negative(factors[lane] - largest_[lane]);
      totals_[lane] *= factors[lane];
    }
    for (int64_t key = 0; key < KEYS; key++) {
      float* const scores = scores_[key];
#pragma omp simd
      for (int lane = 0; lane < QUERIES; lane++) {
        const float weight = exp_negative(scores[lane] - largest_[lane]);
        scores[lane] = scores[lane] == hidden ? 0 : weight;
        totals_[lane] += scores[lane];
      }
    }
    if (changed)
      for (int64_t d = 0; d < D; d++)
#pragma omp simd
        for (int lane = 0; lane < QUERIES; lane++) sums_[d][lane] *= factors[lane];
    for (int64_t key = 0; key < KEYS; key += PER_WORD<T>)
      for (int64_t lane = 0; lane < QUERIES; lane += 16)
        store(&weights_[key / PER_WORD<T>][lane],
              join<T>(load(&scores_[key][lane]), load(&scores_[key + PER_WORD<T> - 1][lane])));
  }

  alignas(64) uint32_t query_[WORDS][QUERIES];
  alignas(64) uint32_t keys_[KEYS][WORDS];
  alignas(64) uint32_t values_[KEYS / PER_WORD<T>][D];
  alignas(64) uint32_t weights_[KEYS / PER_WORD<T>][QUERIES];
  alignas(64) float scores_[KEYS][QUERIES];
  alignas(64) float sums_[D][QUERIES];
  alignas(64) float largest_[QUERIES], totals_[QUERIES];
  alignas(64) int32_t positions_[QUERIES];
  const T* queries_[QUERIES];
  T* outs_[QUERIES];
};

// Attends for the given runs of a step.
template <typename T, int N>
void attend_runs(const Step<T>& step, const std::vector<Run>& runs) {
  struct Task {
    Run run;
    int64_t head, first;
  };
  std::vector<Task> tasks;
  for (const Run& run : runs)
    for (int64_t head = 0; head < step.heads; head++)
      for (int64_t first = 0; first < run.length * step.groups; first += QUERIES)
        tasks.push_back({run, head, first});
#pragma omp parallel
  {
    const auto tile = std::make_unique_for_overwrite<Tile<T, N>>();
#pragma omp for schedule(dynamic)
    for (int64_t i = tasks.size() - 1; i >= 0; i--) {  // those that see the most first
      const auto& [run, head, first] = tasks[i];
      tile->begin(step, run, head, first, std::min(QUERIES, run.length * step.groups - first));
      tile->attend(step, run.start, head);
      tile->end();
    }
  }
}

}  // namespace lockstep
