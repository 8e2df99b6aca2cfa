// Products with weights in panels, for few rows as fast as the weights can be read.
//
// A weight [N, K] lies in panels of 32 of its rows, one behind the other and filled up with zeros,
// so that a product reads it once from front to back. In a panel the numbers of one place of K, or
// of the few places that the processor multiplies at a time, lie together for all 32 rows.
//
// A result is added up in the order of K whatever the number of rows, so a row's results do not
// depend on the rows beside it.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

#include "lanes.h"

namespace lockstep {

using at::Tensor;

constexpr int64_t PANEL = 32;

// Rows whose sums are kept in registers.
constexpr int64_t TILE = 12;

// Rows of one task: few enough that they stay in the cache next to a panel.
constexpr int64_t TASK_ROWS = 96;

// Bytes of a panel between what is multiplied and what is fetched for later.
constexpr int64_t AHEAD = 2048;

// Two times sixteen numbers: those of one place of K in a panel, or the results of one row.
struct Pair {
  Lanes first, second;
};

// The results of one panel for some rows. `bias` has a number per row of the panel, or is null.
template <typename T>
struct Results {
  T* to;
  int64_t stride, count;
  const float* bias;

  Results below(int64_t rows) const { return {to + rows * stride, stride, count, bias}; }

  void store(int64_t row, Pair sums) const {
    if (bias) {
      sums.first += load(bias);
      sums.second += load(bias + 16);
    }
    float numbers[PANEL];
    lockstep::store(numbers, sums.first);
    lockstep::store(numbers + 16, sums.second);
    for (int64_t c = 0; c < count; c++) to[row * stride + c] = static_cast<T>(numbers[c]);
  }
};

// Cuts `count` rows into tiles of nearly equal height; calls `run(first, height)` for each, the
// height being a constant.
template <typename Run>
void for_tiles(int64_t count, Run run) {
  const int64_t tiles = (count + TILE - 1) / TILE;
  for (int64_t tile = 0; tile < tiles; tile++) {
    const int64_t first = count * tile / tiles, end = count * (tile + 1) / tiles;
    switch (end - first) {
#define HEIGHT(N) \
  case N:         \
    run(first, std::integral_constant<int, N>{}); \
    break;
      HEIGHT(1) HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6)
      HEIGHT(7) HEIGHT(8) HEIGHT(9) HEIGHT(10) HEIGHT(11) HEIGHT(12)
#undef HEIGHT
    }
  }
}

// Divides a product among threads: `run(first, height, panel, results)` for some rows and a panel.
template <typename T, typename Run>
void for_panels(int64_t rows, int64_t size, T* to, const float* bias, Run run) {
  const int64_t panels = (size + PANEL - 1) / PANEL, parts = (rows + TASK_ROWS - 1) / TASK_ROWS;
#pragma omp parallel for schedule(static)
  for (int64_t task = 0; task < parts * panels; task++) {
    const int64_t first = task / panels * TASK_ROWS, panel = task % panels;
    const int64_t column = panel * PANEL;
    run(first, std::min(TASK_ROWS, rows - first), panel,
        Results<T>{to + first * size + column, size, std::min(PANEL, size - column),
                   bias ? bias + column : nullptr});
  }
}

// --- Numbers in float32, weights of any width that is widened to it ---------------------------

inline Pair load_pair(const float* from) { return {load(from), load(from + 16)}; }

// The first sixteen lie in the lower halves of words, each a shift or a mask away from its float.
inline Pair load_pair(const c10::BFloat16* from) {
  typedef uint32_t Words __attribute__((vector_size(64)));
  Words words;
  std::memcpy(&words, from, sizeof(words));
  return {reinterpret_cast<Lanes>(words << 16), reinterpret_cast<Lanes>(words & 0xffff0000u)};
}

inline Lanes load(const c10::Half* from) {
#ifdef __AVX512F__
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#else
  Lanes lanes;
  for (int i = 0; i < 16; i++) lanes[i] = from[i];
  return lanes;
#endif
}

inline Pair load_pair(const c10::Half* from) { return {load(from), load(from + 16)}; }

template <typename Weight>
void multiply_widened(const Weight* panel, const float* x, int64_t rows, int64_t width,
                      const Results<float>& out) {
  for_tiles(rows, [&](int64_t top, auto height) {
    const float* const tile = x + top * width;
    Pair sums[height] = {};
    for (int64_t k = 0; k < width; k++) {
      const Weight* const at = panel + k * PANEL;
      for (int64_t line = 0; line < PANEL * static_cast<int64_t>(sizeof(Weight)); line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(at) + AHEAD + line);
      const Pair weights = load_pair(at);
      for (int r = 0; r < height; r++) {
        const Lanes number = splat(tile[r * width + k]);
        sums[r].first += number * weights.first;
        sums[r].second += number * weights.second;
      }
    }
    for (int r = 0; r < height; r++) out.store(top + r, sums[r]);
  });
}

template <typename Weight>
void product(const float* x, int64_t rows, int64_t width, const Weight* panels,
             const float* bias, float* to, int64_t size) {
  for_panels(rows, size, to, bias, [&](int64_t first, int64_t height, int64_t index, auto out) {
    const Weight* const panel = panels + index * width * PANEL;
    if (std::is_same_v<Weight, float> || height <= TILE)
      return multiply_widened(panel, x + first * width, height, width, out);
    const std::unique_ptr<float[]> widened(new float[width * PANEL]);
    for (int64_t k = 0; k < width; k++) {
      const Pair pair = load_pair(panel + k * PANEL);
      store(&widened[k * PANEL], pair.first);
      store(&widened[k * PANEL + 16], pair.second);
    }
    multiply_widened(widened.get(), x + first * width, height, width, out);
  });
}

// --- Numbers and weights in bfloat16, for processors that multiply two of each at a time -------

#ifdef __AVX512BF16__

// Panels are [N / 32, K / 2, 32, 2].
inline void product(const c10::BFloat16* x, int64_t rows, int64_t width,
                    const c10::BFloat16* panels, const float* bias, c10::BFloat16* to,
                    int64_t size) {
  for_panels(rows, size, to, bias, [&](int64_t first, int64_t height, int64_t index, auto out) {
    const c10::BFloat16* const panel = panels + index * width * PANEL;
    for_tiles(height, [&](int64_t top, auto count) {
      const c10::BFloat16* const tile = x + (first + top) * width;
      Pair sums[count] = {};
      for (int64_t k = 0; k < width; k += 2) {
        const c10::BFloat16* const at = panel + k * PANEL;
        for (int64_t line = 0; line < 128; line += 64)
          __builtin_prefetch(reinterpret_cast<const char*>(at) + AHEAD + line);
        const auto one = reinterpret_cast<__m512bh>(_mm512_loadu_si512(at));
        const auto two = reinterpret_cast<__m512bh>(_mm512_loadu_si512(at + 32));
        for (int r = 0; r < count; r++) {
          int32_t pair;
          std::memcpy(&pair, tile + r * width + k, sizeof(pair));
          const auto numbers = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
          sums[r].first = _mm512_dpbf16_ps(sums[r].first, one, numbers);
          sums[r].second = _mm512_dpbf16_ps(sums[r].second, two, numbers);
        }
      }
      for (int r = 0; r < count; r++) out.store(top + r, sums[r]);
    });
  });
}

#endif

}  // namespace lockstep
