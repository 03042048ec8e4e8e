// Layer norm and RMS norm of rows, with their gradients. A row of up to 16 elements a thread is read once and
// kept in registers; the host takes longer rows elsewhere. Mean and inverse deviation are kept in float32 for the gradient.
#include "common.cuh"

static const int ELEMENTS = 16;  // of a row, held by a thread

template <class T, bool CENTRED>
__device__ __forceinline__ void norm_row(const T* x, const T* weight, const T* bias, T* y, float* stats, i64 width, float eps,
                                         bool whole) {
  const int n = Width<T>::n;
  const i64 step = (i64)blockDim.x * n, first = (i64)threadIdx.x * n;
  float held[(ELEMENTS / Width<T>::n)][Width<T>::n];
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < (ELEMENTS / Width<T>::n); ++c) {
    load(x, first + c * step, width, whole, held[c]);  // 0 beyond the end
#pragma unroll
    for (int k = 0; k < n; ++k) sum += held[c][k];
  }
  const float mean = CENTRED ? over_block<Add>(sum, 0.0f) / (float)width : 0.0f;
  float square = 0.0f;
#pragma unroll
  for (int c = 0; c < (ELEMENTS / Width<T>::n); ++c)
#pragma unroll
    for (int k = 0; k < n; ++k) {
      held[c][k] = first + c * step + k < width ? held[c][k] - mean : 0.0f;
      square += held[c][k] * held[c][k];
    }
  const float scale = 1.0f / sqrtf(over_block<Add>(square, 0.0f) / (float)width + eps);
  if (threadIdx.x == 0) { stats[0] = mean; stats[1] = scale; }
#pragma unroll
  for (int c = 0; c < (ELEMENTS / Width<T>::n); ++c) {
    const i64 at = first + c * step;
    if (at >= width) break;
    float w[Width<T>::n], b[Width<T>::n];
    if (weight) load(weight, at, width, whole, w);
    if (bias) load(bias, at, width, whole, b);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      float v = held[c][k] * scale;
      if (weight) v *= w[k];
      if (bias) v += b[k];
      held[c][k] = v;
    }
    store(y, at, width, whole, held[c]);
  }
}

// dx = r (h - mean h - n mean(h n)) with h = g weight and n the normalised row; RMS norm has no mean h. Each block walks
// rows blockIdx, blockIdx + gridDim, ... and adds up g n and g for its columns; `norm_columns` adds the blocks' sums.
template <class T, bool CENTRED, bool PARAMETERS>
__device__ __forceinline__ void norm_gradient(const T* g, const T* x, const T* weight, const float* stats, T* dx,
                                              float* partial, i64 rows, i64 width, bool whole) {
  const int n = Width<T>::n;
  const i64 step = (i64)blockDim.x * n, first = (i64)threadIdx.x * n;
  float dw[(ELEMENTS / Width<T>::n)][Width<T>::n], db[(ELEMENTS / Width<T>::n)][Width<T>::n];
  if (PARAMETERS) {
#pragma unroll
    for (int c = 0; c < (ELEMENTS / Width<T>::n); ++c)
#pragma unroll
      for (int k = 0; k < n; ++k) dw[c][k] = db[c][k] = 0.0f;
  }
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    const T *gr = g + r * width, *xr = x + r * width;
    const float mean = stats[2 * r], scale = stats[2 * r + 1];
    float sum = 0.0f, product = 0.0f;
#pragma unroll
    for (int c = 0; c < (ELEMENTS / Width<T>::n); ++c) {
      const i64 at = first + c * step;
      if (at >= width) break;
      float a[Width<T>::n], b[Width<T>::n], w[Width<T>::n];
      load(gr, at, width, whole, a);
      load(xr, at, width, whole, b);
      if (weight) load(weight, at, width, whole, w);
#pragma unroll
      for (int k = 0; k < n; ++k) {
        const float normal = (b[k] - mean) * scale;
        const float h = weight ? a[k] * w[k] : a[k];
        if (at + k < width) {
          sum += h;
          product += h * normal;
          if (PARAMETERS) { dw[c][k] += a[k] * normal; db[c][k] += a[k]; }
        }
      }
    }
    if (!dx) continue;
    sum = CENTRED ? over_block<Add>(sum, 0.0f) / (float)width : 0.0f;
    product = over_block<Add>(product, 0.0f) / (float)width;
#pragma unroll
    for (int c = 0; c < (ELEMENTS / Width<T>::n); ++c) {
      const i64 at = first + c * step;
      if (at >= width) break;
      float a[Width<T>::n], b[Width<T>::n], w[Width<T>::n];  // again, from the cache
      load(gr, at, width, whole, a);
      load(xr, at, width, whole, b);
      if (weight) load(weight, at, width, whole, w);
#pragma unroll
      for (int k = 0; k < n; ++k) {
        const float normal = (b[k] - mean) * scale;
        a[k] = scale * ((weight ? a[k] * w[k] : a[k]) - sum - normal * product);
      }
      store(dx + r * width, at, width, whole, a);
    }
  }
  if (PARAMETERS) {
    float* mine = partial + (i64)blockIdx.x * 2 * width;
#pragma unroll
    for (int c = 0; c < (ELEMENTS / Width<T>::n); ++c)
#pragma unroll
      for (int k = 0; k < n; ++k) {
        const i64 at = first + c * step + k;
        if (at < width) { mine[at] = dw[c][k]; mine[width + at] = db[c][k]; }
      }
  }
}

#define RG_NORM(NAME, T)                                                                                             \
  extern "C" __global__ void __launch_bounds__(512, 1)                                                                  \
      norm_##NAME(const T* x, const T* weight, const T* bias, T* y, float* stats, i64 rows, i64 width, float eps,    \
                  int whole, int centred) {                                                                          \
    for (i64 r = blockIdx.x; r < rows; r += gridDim.x)                                                               \
      if (centred) norm_row<T, true>(x + r * width, weight, bias, y + r * width, stats + 2 * r, width, eps, whole);  \
      else norm_row<T, false>(x + r * width, weight, bias, y + r * width, stats + 2 * r, width, eps, whole);         \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(512, 1)                                                                  \
      layer_norm_gradient_##NAME(const T* g, const T* x, const T* weight, const float* stats, T* dx, float* partial, \
                                 i64 rows, i64 width, int whole) {                                                   \
    if (partial) norm_gradient<T, true, true>(g, x, weight, stats, dx, partial, rows, width, whole);                 \
    else norm_gradient<T, true, false>(g, x, weight, stats, dx, partial, rows, width, whole);                        \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(512, 1)                                                                  \
      rms_norm_gradient_##NAME(const T* g, const T* x, const T* weight, const float* stats, T* dx, float* partial,   \
                               i64 rows, i64 width, int whole) {                                                     \
    if (partial) norm_gradient<T, false, true>(g, x, weight, stats, dx, partial, rows, width, whole);                \
    else norm_gradient<T, false, false>(g, x, weight, stats, dx, partial, rows, width, whole);                       \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(512, 1)                                                                  \
      norm_columns_##NAME(const float* partial, T* dw, T* db, i64 blocks, i64 width) {                               \
    const i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;                                                       \
    if (at >= 2 * width) return;                                                                                     \
    float s = 0.0f;                                                                                                  \
    for (i64 b = 0; b < blocks; ++b) s += partial[b * 2 * width + at];                                               \
    if (at < width) { if (dw) dw[at] = narrow<T>(s); }                                                               \
    else if (db) db[at - width] = narrow<T>(s);                                                                      \
  }
RG_TYPES(RG_NORM)
