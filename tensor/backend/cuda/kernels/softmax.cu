// softmax and log softmax of the rows of a matrix, with their gradients. One block a row; a row of up to
// 4 x 16 bytes x 256 threads is read once and kept in registers, a longer one is read twice.
#include "common.cuh"

static const int KEPT = 4;

template <class T, bool LOG>
__device__ __forceinline__ void softmax_row(const T* x, T* y, i64 width, bool whole) {
  const int n = Width<T>::n;
  const i64 step = (i64)blockDim.x * n, first = (i64)threadIdx.x * n;
  float held[KEPT][Width<T>::n];
  float top = -RG_INFINITY;
#pragma unroll
  for (int c = 0; c < KEPT; ++c) {
    const i64 at = first + c * step;
    load(x, at, width, whole, held[c]);
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (at + k < width) top = Max::of(top, held[c][k]);
  }
  for (i64 at = first + KEPT * step; at < width; at += step) {
    float v[Width<T>::n];
    load(x, at, width, whole, v);
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (at + k < width) top = Max::of(top, v[k]);
  }
  top = over_block<Max>(top, -RG_INFINITY);
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < KEPT; ++c) {
    const i64 at = first + c * step;
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (at + k < width) sum += expf(held[c][k] - top);
  }
  for (i64 at = first + KEPT * step; at < width; at += step) {
    float v[Width<T>::n];
    load(x, at, width, whole, v);
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (at + k < width) sum += expf(v[k] - top);
  }
  sum = over_block<Add>(sum, 0.0f);
  const float shift = LOG ? top + logf(sum) : top, scale = 1.0f / sum;
#pragma unroll
  for (int c = 0; c < KEPT; ++c) {
    const i64 at = first + c * step;
#pragma unroll
    for (int k = 0; k < n; ++k) held[c][k] = LOG ? held[c][k] - shift : expf(held[c][k] - shift) * scale;
    if (at < width) store(y, at, width, whole, held[c]);
  }
  for (i64 at = first + KEPT * step; at < width; at += step) {
    float v[Width<T>::n];
    load(x, at, width, whole, v);
#pragma unroll
    for (int k = 0; k < n; ++k) v[k] = LOG ? v[k] - shift : expf(v[k] - shift) * scale;
    store(y, at, width, whole, v);
  }
}

// dx = y (g - sum(g y)), or g - exp(y) sum(g) for the logarithm
template <class T, bool LOG>
__device__ __forceinline__ void softmax_gradient_row(const T* g, const T* y, T* dx, i64 width, bool whole) {
  const int n = Width<T>::n;
  const i64 step = (i64)blockDim.x * n, first = (i64)threadIdx.x * n;
  float sum = 0.0f;
  for (i64 at = first; at < width; at += step) {
    float a[Width<T>::n], b[Width<T>::n];
    load(g, at, width, whole, a);
    if (!LOG) load(y, at, width, whole, b);
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (at + k < width) sum += LOG ? a[k] : a[k] * b[k];
  }
  sum = over_block<Add>(sum, 0.0f);
  for (i64 at = first; at < width; at += step) {
    float a[Width<T>::n], b[Width<T>::n];
    load(g, at, width, whole, a);
    load(y, at, width, whole, b);
#pragma unroll
    for (int k = 0; k < n; ++k) a[k] = LOG ? a[k] - expf(b[k]) * sum : b[k] * (a[k] - sum);
    store(dx, at, width, whole, a);
  }
}

#define RG_SOFTMAX(NAME, T)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                                  \
      softmax_##NAME(const T* x, T* y, i64 rows, i64 width, int whole, int logarithm) {                              \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x)                                                               \
      if (logarithm) softmax_row<T, true>(x + r * width, y + r * width, width, whole);                               \
      else softmax_row<T, false>(x + r * width, y + r * width, width, whole);                                        \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                                  \
      softmax_gradient_##NAME(const T* g, const T* y, T* dx, i64 rows, i64 width, int whole, int logarithm) {        \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x)                                                               \
      if (logarithm) softmax_gradient_row<T, true>(g + r * width, y + r * width, dx + r * width, width, whole);      \
      else softmax_gradient_row<T, false>(g + r * width, y + r * width, dx + r * width, width, whole);               \
  }
RG_TYPES(RG_SOFTMAX)
