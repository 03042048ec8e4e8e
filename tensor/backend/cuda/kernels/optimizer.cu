// Optimizer steps over many tensors in one launch, and norms of many tensors.
//
// `table` has four numbers a piece of work: addresses of parameter and gradient, first element of the piece in the flat
// state, number of elements. The host cuts tensors into pieces, one block a piece. The coefficients stand in device
// memory (`c`), where a captured graph's own kernel (`adam_coefficients`) moves them on from step to step.
#include "common.cuh"

struct Piece { i64 p, g, start, n; };

// hyper: lr, beta1, beta2, eps, weight decay, decoupled, maximize, unused; step is counted here, in float64
extern "C" __global__ void adam_coefficients(double* hyper, double* step, float* c) {
  if (threadIdx.x || blockIdx.x) return;
  const double t = step[0] + 1.0, lr = hyper[0], beta1 = hyper[1], beta2 = hyper[2];
  step[0] = t;
  const double root = sqrt(1.0 - pow(beta2, t));
  c[0] = (float)beta1;
  c[1] = (float)beta2;
  c[2] = (float)(lr * root / (1.0 - pow(beta1, t)));
  c[3] = (float)(hyper[3] * root);
  c[4] = (float)(hyper[5] != 0.0 ? 1.0 - lr * hyper[4] : 1.0);
  c[5] = (float)(hyper[5] != 0.0 ? 0.0 : hyper[4]);
  c[6] = hyper[6] != 0.0 ? -1.0f : 1.0f;
}

// p shrinks (decoupled decay), m and v follow g (plus coupled decay), p -= rate m / (sqrt(v) + eps)
template <class T>
__device__ __forceinline__ void adam_piece(Piece w, T* m, T* v, T* most, const float* c, const float* scale) {
  const int n = Width<T>::n;
  T* p = reinterpret_cast<T*>(w.p);
  const T* g = reinterpret_cast<const T*>(w.g);
  const float beta1 = c[0], beta2 = c[1], rate = c[2], eps = c[3], shrink = c[4], decay = c[5];
  const float sign = c[6] * (scale ? *scale : 1.0f);
  const bool whole = ((w.p | w.g) & 15) == 0 && w.start % n == 0;
  for (i64 at = (i64)threadIdx.x * n; at < w.n; at += (i64)blockDim.x * n) {
    float a[Width<T>::n], b[Width<T>::n], x[Width<T>::n], y[Width<T>::n], z[Width<T>::n];
    load(p, at, w.n, whole, a);
    load(g, at, w.n, whole, b);
    load(m + w.start, at, w.n, whole, x);
    load(v + w.start, at, w.n, whole, y);
    if (most) load(most + w.start, at, w.n, whole, z);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      const float d = sign * b[k] + decay * a[k];
      x[k] = x[k] + (1.0f - beta1) * (d - x[k]);
      y[k] = beta2 * y[k] + (1.0f - beta2) * d * d;
      float root = y[k];
      if (most) root = z[k] = Max::of(z[k], y[k]);
      a[k] = a[k] * shrink - rate * x[k] / (sqrtf(root) + eps);
    }
    store(p, at, w.n, whole, a);
    store(m + w.start, at, w.n, whole, x);
    store(v + w.start, at, w.n, whole, y);
    if (most) store(most + w.start, at, w.n, whole, z);
  }
}

// c: lr, momentum, 1 - dampening, decay, nesterov, sign
template <class T>
__device__ __forceinline__ void sgd_piece(Piece w, T* v, const float* c, const float* scale) {
  const int n = Width<T>::n;
  T* p = reinterpret_cast<T*>(w.p);
  const T* g = reinterpret_cast<const T*>(w.g);
  const float lr = c[0], momentum = c[1], keep = c[2], decay = c[3], sign = c[5] * (scale ? *scale : 1.0f);
  const bool nesterov = c[4] != 0.0f;
  const bool whole = ((w.p | w.g) & 15) == 0 && w.start % n == 0;
  for (i64 at = (i64)threadIdx.x * n; at < w.n; at += (i64)blockDim.x * n) {
    float a[Width<T>::n], b[Width<T>::n], x[Width<T>::n];
    load(p, at, w.n, whole, a);
    load(g, at, w.n, whole, b);
    if (v) load(v + w.start, at, w.n, whole, x);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      float d = sign * b[k] + decay * a[k];
      if (v) {
        x[k] = momentum * x[k] + keep * d;
        d = nesterov ? d + momentum * x[k] : x[k];
      }
      a[k] -= lr * d;
    }
    store(p, at, w.n, whole, a);
    if (v) store(v + w.start, at, w.n, whole, x);
  }
}

// Sums of squares of pieces (`g` of each), one number a piece; then the norm, and what clips it to `most`.
template <class T> __device__ __forceinline__ void square_piece(Piece w, float* out) {
  const int n = Width<T>::n;
  const T* g = reinterpret_cast<const T*>(w.g);
  const bool whole = (w.g & 15) == 0;
  float sum = 0.0f;
  for (i64 at = (i64)threadIdx.x * n; at < w.n; at += (i64)blockDim.x * n) {
    float b[Width<T>::n];
    load(g, at, w.n, whole, b);
#pragma unroll
    for (int k = 0; k < n; ++k) sum += b[k] * b[k];
  }
  sum = over_block<Add>(sum, 0.0f);
  if (threadIdx.x == 0) *out = sum;
}

extern "C" __global__ void __launch_bounds__(1024, 1) norm_finish(const float* squares, i64 pieces, float most, float* norm, float* scale) {
  float sum = 0.0f;
  for (i64 i = threadIdx.x; i < pieces; i += blockDim.x) sum += squares[i];
  sum = over_block<Add>(sum, 0.0f);
  if (threadIdx.x == 0) {
    *norm = sqrtf(sum);
    const float s = most / (sqrtf(sum) + 1e-6f);
    *scale = s < 1.0f ? s : s != s ? s : 1.0f;
  }
}

template <class T> __device__ __forceinline__ void scale_piece(Piece w, float by) {
  const int n = Width<T>::n;
  T* g = reinterpret_cast<T*>(w.g);
  const bool whole = (w.g & 15) == 0;
  for (i64 at = (i64)threadIdx.x * n; at < w.n; at += (i64)blockDim.x * n) {
    float b[Width<T>::n];
    load(g, at, w.n, whole, b);
#pragma unroll
    for (int k = 0; k < n; ++k) b[k] *= by;
    store(g, at, w.n, whole, b);
  }
}

#define RG_OPTIMIZER(NAME, T)                                                                                        \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                                  \
      adam_##NAME(const i64* table, T* m, T* v, T* most, const float* c, const float* scale) {            \
    adam_piece<T>(reinterpret_cast<const Piece*>(table)[blockIdx.x], m, v, most, c, scale);                          \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                                  \
      sgd_##NAME(const i64* table, T* v, const float* c, const float* scale) {                                   \
    sgd_piece<T>(reinterpret_cast<const Piece*>(table)[blockIdx.x], v, c, scale);                                    \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256, 1) norm_squares_##NAME(const i64* table, float* out) {              \
    square_piece<T>(reinterpret_cast<const Piece*>(table)[blockIdx.x], out + blockIdx.x);                            \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256, 1) scale_##NAME(const i64* table, const float* scale) {             \
    if (*scale != 1.0f) scale_piece<T>(reinterpret_cast<const Piece*>(table)[blockIdx.x], *scale);                   \
  }
RG_TYPES(RG_OPTIMIZER)
