// Sixteen numbers, or words of 32 bits, at a time.

#pragma once

#include <c10/util/BFloat16.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace lockstep {

typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t LaneInts __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

inline Lanes splat(float value) { return Lanes{} + value; }

inline Lanes as_lanes(Words words) { return reinterpret_cast<Lanes>(words); }

inline Words as_words(Lanes lanes) { return reinterpret_cast<Words>(lanes); }

inline Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

inline Words load(const uint32_t* from) {
  Words words;
  std::memcpy(&words, from, sizeof(words));
  return words;
}

inline Lanes load(const c10::BFloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return as_lanes(__builtin_convertvector(halves, Words) << 16);
}

inline void store(float* to, Lanes lanes) { std::memcpy(to, &lanes, sizeof(lanes)); }

inline void store(uint32_t* to, Words words) { std::memcpy(to, &words, sizeof(words)); }

// Words whose upper halves are the numbers in bfloat16, rounded to the nearest.
inline Words round(Lanes lanes) {
  const Words bits = as_words(lanes);
  const Words rounded = bits + 0x7fff + (bits >> 16 & 1);
  return lanes == lanes ? rounded : Words{} + 0x7fc00000;  // not a number
}

inline void store(c10::BFloat16* to, Lanes lanes) {
  const Halves halves = __builtin_convertvector(round(lanes) >> 16, Halves);
  std::memcpy(to, &halves, sizeof(halves));
}

// Sums of neighboring lanes: those of `a`, then those of `b`.
inline Lanes add_neighbors(Lanes a, Lanes b) {
  const LaneInts even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

// Words of T of two rows of numbers: what `multiply_add` takes at a time. A float32 fills a word.
template <typename T>
inline Words join(Lanes low, Lanes high);

template <>
inline Words join<float>(Lanes low, Lanes) {
  return as_words(low);
}

template <>
inline Words join<c10::BFloat16>(Lanes low, Lanes high) {
  return round(low) >> 16 | (round(high) & 0xffff0000);
}

// sums + a * b for all numbers in a word.
template <typename T>
inline Lanes multiply_add(Lanes sums, Words a, Words b);

template <>
inline Lanes multiply_add<float>(Lanes sums, Words a, Words b) {
  return sums + as_lanes(a) * as_lanes(b);
}

template <>
inline Lanes multiply_add<c10::BFloat16>(Lanes sums, Words a, Words b) {
#ifdef __AVX512BF16__
  return reinterpret_cast<Lanes>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums),
                                                  reinterpret_cast<__m512bh>(a),
                                                  reinterpret_cast<__m512bh>(b)));
#else
  sums += as_lanes(a << 16) * as_lanes(b << 16);
  return sums + as_lanes(a & 0xffff0000) * as_lanes(b & 0xffff0000);
#endif
}

// Turns rows of a square into columns: swaps, for each bit, what differs in it.
inline void transpose(Words (&square)[16]) {
  const LaneInts lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#pragma GCC unroll 4
  for (int bit = 1; bit < 16; bit *= 2) {
    const LaneInts upper = (lane & bit) != 0;
    const LaneInts low = upper ? lane - bit + 16 : lane, high = upper ? lane + 16 : lane + bit;
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      if (i & bit) continue;
      const Words a = square[i], b = square[i + bit];
      square[i] = __builtin_shuffle(a, b, low);
      square[i + bit] = __builtin_shuffle(a, b, high);
    }
  }
}

// exp of x <= 0, to one unit in the last place; written out because a loop over it vectorizes.
inline float exp_negative(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float n = std::nearbyint(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return p * scale;
}

}  // namespace lockstep
