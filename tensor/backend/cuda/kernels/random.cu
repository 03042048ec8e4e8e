// Random numbers and dropout, by Philox. Element i takes word i mod 4 of block i / 4.
#include "philox.cuh"

// multiples of 2^-24 in [0, 1)
__device__ __forceinline__ float unit(u32 x) { return (float)(x >> 8) * 5.9604644775390625e-8f; }

extern "C" __global__ void __launch_bounds__(256, 1)
    random_uniform(float* out, i64 n, i64 seed, i64 draw, const i64* state, float low, float high) {
  const Stream s = stream_of(seed, draw, state);
  for (i64 b = (i64)blockIdx.x * blockDim.x + threadIdx.x; b * 4 < n; b += (i64)gridDim.x * blockDim.x) {
    const Words w = philox(s.seed, (u64)b, s.draw);
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (b * 4 + k < n) out[b * 4 + k] = low + (high - low) * unit(w.v[k]);
  }
}

// Box and Muller's transform: words 0 and 1 give two numbers, words 2 and 3 two more
extern "C" __global__ void __launch_bounds__(256, 1)
    random_normal(float* out, i64 n, i64 seed, i64 draw, const i64* state, float mean, float std) {
  const Stream s = stream_of(seed, draw, state);
  for (i64 b = (i64)blockIdx.x * blockDim.x + threadIdx.x; b * 4 < n; b += (i64)gridDim.x * blockDim.x) {
    const Words w = philox(s.seed, (u64)b, s.draw);
#pragma unroll
    for (int k = 0; k < 4; k += 2) {
      const float radius = sqrtf(-2.0f * logf(1.0f - unit(w.v[k]))), angle = 6.283185307179586f * unit(w.v[k + 1]);
      if (b * 4 + k < n) out[b * 4 + k] = mean + std * radius * cosf(angle);
      if (b * 4 + k + 1 < n) out[b * 4 + k + 1] = mean + std * radius * sinf(angle);
    }
  }
}

// whole numbers in [low, low + range): one word for ranges below 2^32, which are hit evenly to 1 in 2^32
extern "C" __global__ void __launch_bounds__(256, 1)
    random_integers(i64* out, i64 n, i64 seed, i64 draw, const i64* state, i64 low, i64 range) {
  const Stream s = stream_of(seed, draw, state);
  for (i64 b = (i64)blockIdx.x * blockDim.x + threadIdx.x; b * 4 < n; b += (i64)gridDim.x * blockDim.x) {
    const Words w = philox(s.seed, (u64)b, s.draw);
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (b * 4 + k < n) out[b * 4 + k] = low + (i64)(((u64)w.v[k] * (u64)range) >> 32);
  }
}

// y = x / (1 - p) where the word is at least `below` (p times 2^32), else 0. The gradient is the same of g.
template <class T>
__device__ __forceinline__ void dropout(const T* x, T* y, i64 n, Stream s, u32 below, float scale, bool whole) {
  const int w = Width<T>::n;
  for (i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * w; at < n; at += (i64)gridDim.x * blockDim.x * w) {
    float v[Width<T>::n];
    load(x, at, n, whole, v);
#pragma unroll
    for (int part = 0; part < w; part += 4) {
      const Words r = philox(s.seed, (u64)(at + part) / 4, s.draw);
#pragma unroll
      for (int k = 0; k < 4; ++k) v[part + k] = r.v[k] >= below ? v[part + k] * scale : 0.0f;
    }
    store(y, at, n, whole, v);
  }
}

#define RG_DROPOUT(NAME, T)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                                  \
      dropout_##NAME(const T* x, T* y, i64 n, i64 seed, i64 draw, const i64* state, i64 below, float scale, int whole) { \
    dropout<T>(x, y, n, stream_of(seed, draw, state), (u32)below, scale, whole);                                     \
  }
RG_TYPES(RG_DROPOUT)

// state = (seed, base): a graph's last kernel moves base on by the draws that the graph holds
extern "C" __global__ void random_advance(i64* state, i64 draws) {
  if (threadIdx.x == 0 && blockIdx.x == 0) state[1] += draws;
}
