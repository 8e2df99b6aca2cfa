// Products of numbers and weights in eight bits, for processors that multiply four at a time.
//
// Of a row of `x`, 64 numbers are rounded to steps of a 127th of the largest of them; a row of the
// weight has steps of its own. Products of 64 places are added up exactly, and then in the order
// of K. Panels are [N / 32, K / 4, 32, 4], unsigned, with a weight of zero at 128.

#pragma once

#include "panels.h"

#ifdef __AVX512VNNI__

namespace lockstep {

constexpr int64_t GROUP = 64;
constexpr int ZERO = 128;

// Rows as bytes. Kept from call to call, so that no memory is asked for in a step.
struct RoundedRows {
  // The step of a group, and what the zeros of the weights add to its sum.
  struct Group {
    float step;
    int32_t excess;
  };

  int64_t width;  // a multiple of GROUP
  std::vector<int8_t> bytes;
  std::vector<Group> groups;

  void resize(int64_t rows, int64_t numbers) {
    width = (numbers + GROUP - 1) / GROUP * GROUP;
    bytes.resize(rows * width);
    groups.resize(rows * width / GROUP);
  }
};

template <typename T>
void round_group(const T* from, int64_t count, int8_t* to, RoundedRows::Group& group) {
  float numbers[GROUP] = {};
  if (count == GROUP)
    for (int64_t k = 0; k < GROUP; k += 16) store(numbers + k, load(from + k));
  else
    for (int64_t k = 0; k < count; k++) numbers[k] = static_cast<float>(from[k]);
  float largest = 0, nothing = 0;  // NaN where a number is not finite
#pragma omp simd reduction(max : largest) reduction(+ : nothing)
  for (int64_t k = 0; k < GROUP; k++) {
    const float size = std::abs(numbers[k]);
    largest = size > largest ? size : largest;
    nothing += numbers[k] * 0;
  }
  const float factor = largest > 0 ? 127 / largest : 0;
  int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < GROUP; k++) {
    const int32_t rounded = static_cast<int32_t>(std::nearbyint(numbers[k] * factor));
    to[k] = static_cast<int8_t>(rounded);
    sum += rounded;
  }
  group = {largest / 127 + nothing, sum * ZERO};
}

template <typename T>
void round_rows(const T* x, int64_t rows, int64_t numbers, RoundedRows& out) {
  out.resize(rows, numbers);
  const int64_t groups = out.width / GROUP;
#pragma omp parallel for schedule(static) if (rows > 4)
  for (int64_t row = 0; row < rows; row++)
    for (int64_t g = 0; g < groups; g++)
      round_group(x + row * numbers + g * GROUP, std::min(GROUP, numbers - g * GROUP),
                  &out.bytes[row * out.width + g * GROUP], out.groups[row * groups + g]);
}

// Adds the products of HEIGHT rows with `depth` places of a panel to `sums`. Apart, and for any
// depth, so that the sums stay in memory and what is added up exactly in registers.
template <int HEIGHT>
[[gnu::noinline]] void add_places(const uint8_t* panel, const int8_t* x, int64_t width,
                                  const RoundedRows::Group* groups, int64_t stride, int64_t depth,
                                  Pair* sums) {
  struct {
    LaneInts first, second;
  } exact[HEIGHT];
  for (int r = 0; r < HEIGHT; r++)
    exact[r].first = exact[r].second = LaneInts{} - groups[r * stride].excess;
  for (int64_t k = 0; k < depth; k += 4) {
    const uint8_t* const at = panel + k * PANEL;
    __builtin_prefetch(at + AHEAD);
    __builtin_prefetch(at + AHEAD + 64);
    const __m512i one = _mm512_loadu_si512(at), two = _mm512_loadu_si512(at + 64);
    for (int r = 0; r < HEIGHT; r++) {
      int32_t bytes;
      std::memcpy(&bytes, x + r * width + k, sizeof(bytes));
      const __m512i numbers = _mm512_set1_epi32(bytes);
      exact[r].first = reinterpret_cast<LaneInts>(_mm512_dpbusd_epi32(
          reinterpret_cast<__m512i>(exact[r].first), one, numbers));
      exact[r].second = reinterpret_cast<LaneInts>(_mm512_dpbusd_epi32(
          reinterpret_cast<__m512i>(exact[r].second), two, numbers));
    }
  }
  for (int r = 0; r < HEIGHT; r++) {
    const Lanes step = splat(groups[r * stride].step);
    sums[r].first += step * __builtin_convertvector(exact[r].first, Lanes);
    sums[r].second += step * __builtin_convertvector(exact[r].second, Lanes);
  }
}

template <typename T>
void multiply_int8(const uint8_t* panel, const float* steps, const RoundedRows& x, int64_t first,
                   int64_t rows, const Results<T>& out) {
  const int64_t width = x.width, groups = width / GROUP;
  for_tiles(rows, [&](int64_t top, auto height) {
    const int64_t row = first + top;
    Pair sums[height] = {};
    for (int64_t g = 0; g < groups; g++)
      add_places<height>(panel + g * GROUP * PANEL, &x.bytes[row * width + g * GROUP], width,
                         &x.groups[row * groups + g], groups, GROUP, sums);
    for (int r = 0; r < height; r++)
      out.store(top + r, {sums[r].first * load(steps), sums[r].second * load(steps + 16)});
  });
}

template <typename T>
void product(const T* x, int64_t rows, int64_t width, const uint8_t* panels, const float* steps,
             const float* bias, T* to, int64_t size) {
  static thread_local RoundedRows of_this_thread;
  RoundedRows& rounded = of_this_thread;  // one for all threads of the product
  round_rows(x, rows, width, rounded);
  for_panels(rows, size, to, bias, [&](int64_t first, int64_t height, int64_t index, auto out) {
    multiply_int8(panels + index * rounded.width * PANEL, steps + index * PANEL, rounded, first,
                  height, out);
  });
}

}  // namespace lockstep

#endif
