// Cross entropy of rows with class indices, and its gradient, in one pass over the logits.
//
// A first kernel counts the targets that count; the second reads a row (its maximum and sum come from one pass, online),
// writes its loss and (softmax - one hot) / count in the place of the gradient; the third adds the losses in a fixed
// order. The gradient that comes in at the end is usually 1: `cross_entropy_scale` then returns at once.
#include "common.cuh"

// record: {code, index, limit, -} in device memory; read by the host when it next synchronises
__device__ __forceinline__ bool inside(i64 t, i64 classes, i64* record) {
  if (t >= 0 && t < classes) return true;
  record[1] = t; record[2] = classes; record[0] = 2;
  return false;
}

extern "C" __global__ void __launch_bounds__(1024, 1)
    cross_entropy_count(const i64* target, i64 rows, i64 ignore, float* count) {
  float n = 0.0f;  // exact up to 2^24 a thread, and the partial sums as pairs below
  for (i64 r = threadIdx.x; r < rows; r += blockDim.x) n += target[r] != ignore ? 1.0f : 0.0f;
  n = over_block<Add>(n, 0.0f);
  if (threadIdx.x == 0) *count = n;
}

extern "C" __global__ void __launch_bounds__(1024, 1) cross_entropy_sum(const float* losses, i64 rows, const float* count, float* out) {
  float s = 0.0f;
  for (i64 r = threadIdx.x; r < rows; r += blockDim.x) s += losses[r];
  s = over_block<Add>(s, 0.0f);
  if (threadIdx.x == 0) *out = count ? s / *count : s;
}

template <class T>
__device__ __forceinline__ void entropy_row(const T* x, T* dx, i64 t, bool counts, i64 width, float scale, float smoothing,
                                            bool whole, float* loss) {
  const int n = Width<T>::n;
  const i64 step = (i64)blockDim.x * n, first = (i64)threadIdx.x * n;
  float top = -RG_INFINITY, sum = 0.0f, plain = 0.0f;
  for (i64 at = first; at < width; at += step) {
    float v[Width<T>::n];
    load(x, at, width, whole, v);
    float here = -RG_INFINITY;
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (at + k < width) { here = Max::of(here, v[k]); plain += v[k]; }
    if (here > top || here != here) { sum *= expf(top - here); top = here; }
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (at + k < width && top != -RG_INFINITY) sum += expf(v[k] - top);  // classes that are ruled out
  }
  const float best = over_block<Max>(top, -RG_INFINITY);
  sum = over_block<Add>(top == -RG_INFINITY ? 0.0f : sum * expf(top - best), 0.0f);
  const float log_sum = best + logf(sum), inverse = 1.0f / sum;
  const float even = smoothing / (float)width, hit = 1.0f - smoothing;
  if (smoothing != 0.0f) plain = over_block<Add>(plain, 0.0f);
  if (threadIdx.x == 0) {
    float y = counts ? hit * (log_sum - widen(x[t])) : 0.0f;
    if (counts && smoothing != 0.0f) y += even * ((float)width * log_sum - plain);
    *loss = y;
  }
  if (!dx) return;
  for (i64 at = first; at < width; at += step) {
    float v[Width<T>::n];
    load(x, at, width, whole, v);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      float p = expf(v[k] - best) * inverse - even;
      if (at + k == t) p -= hit;
      v[k] = counts ? p * scale : 0.0f;
    }
    store(dx, at, width, whole, v);
  }
}

#define RG_ENTROPY(NAME, T)                                                                                          \
  extern "C" __global__ void __launch_bounds__(512, 1)                                                                  \
      cross_entropy_##NAME(const T* x, const i64* target, const float* count, T* dx, float* losses, i64* record,      \
                           i64 rows, i64 width, i64 ignore, float smoothing, int whole) {                             \
    const float scale = count ? 1.0f / *count : 1.0f;                                                                \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {                                                             \
      const i64 t = target[r];                                                                                       \
      const bool counts = t != ignore && inside(t, width, record);                                                   \
      entropy_row<T>(x + r * width, dx ? dx + r * width : (T*)0, counts ? t : 0, counts, width, scale, smoothing,    \
                     whole, losses + r);                                                                             \
    }                                                                                                                \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                                  \
      cross_entropy_scale_##NAME(const T* dx, const float* g, T* out, i64 rows, i64 width, int each, int whole) {     \
    if (!each && dx == out && *g == 1.0f) return;                                                                    \
    const int n = Width<T>::n;                                                                                       \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {                                                             \
      const float by = each ? g[r] : *g;                                                                             \
      for (i64 at = (i64)threadIdx.x * n; at < width; at += (i64)blockDim.x * n) {                                   \
        float v[Width<T>::n];                                                                                        \
        load(dx + r * width, at, width, whole, v);                                                                   \
        _Pragma("unroll") for (int k = 0; k < n; ++k) v[k] *= by;                                                    \
        store(out + r * width, at, width, whole, v);                                                                 \
      }                                                                                                              \
    }                                                                                                                \
  }
RG_TYPES(RG_ENTROPY)
