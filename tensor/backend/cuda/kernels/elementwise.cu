// Elementwise functions of contiguous arrays in 16-byte accesses: arithmetic in the three types, activations, and
// activations' gradients. Everything is computed in float32 and rounded once.
#include "common.cuh"

struct Gelu {
  __device__ __forceinline__ static float of(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
  __device__ __forceinline__ static float slope(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) + x * 0.39894228040143268f * expf(-0.5f * x * x);
  }
};
struct GeluTanh {
  __device__ __forceinline__ static float inner(float x) { return 0.79788456080286536f * (x + 0.044715f * x * x * x); }
  __device__ __forceinline__ static float of(float x) { return 0.5f * x * (1.0f + tanhf(inner(x))); }
  __device__ __forceinline__ static float slope(float x) {
    const float t = tanhf(inner(x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.79788456080286536f * (1.0f + 0.134145f * x * x);
  }
};
struct Sigmoid { __device__ __forceinline__ static float of(float x) { return 1.0f / (1.0f + expf(-x)); } };
struct Silu {
  __device__ __forceinline__ static float of(float x) { return x * Sigmoid::of(x); }
  __device__ __forceinline__ static float slope(float x) { const float s = Sigmoid::of(x); return s * (1.0f + x * (1.0f - s)); }
};
struct Relu {
  __device__ __forceinline__ static float of(float x) { return x > 0.0f || x != x ? x : 0.0f; }
  __device__ __forceinline__ static float slope(float x) { return x > 0.0f ? 1.0f : 0.0f; }
};

template <class T, class F> __device__ __forceinline__ void map(const T* x, T* y, i64 n, bool whole) {
  const int w = Width<T>::n;
  for (i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * w; at < n; at += (i64)gridDim.x * blockDim.x * w) {
    float v[Width<T>::n];
    load(x, at, n, whole, v);
#pragma unroll
    for (int k = 0; k < w; ++k) v[k] = F::of(v[k]);
    store(y, at, n, whole, v);
  }
}

template <class T, class F> __device__ __forceinline__ void map_gradient(const T* g, const T* x, T* dx, i64 n, bool whole) {
  const int w = Width<T>::n;
  for (i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * w; at < n; at += (i64)gridDim.x * blockDim.x * w) {
    float a[Width<T>::n], v[Width<T>::n];
    load(g, at, n, whole, a);
    load(x, at, n, whole, v);
#pragma unroll
    for (int k = 0; k < w; ++k) a[k] *= F::slope(v[k]);
    store(dx, at, n, whole, a);
  }
}

// y = a (op) b. b is an array of `period` elements that repeats (period = n: no repeat), or, where it is null, `number`.
enum { PLUS, MINUS, TIMES, OVER, FROM };  // FROM: number - a

template <class T> __device__ __forceinline__ void combine(const T* a, const T* b, T* y, i64 n, i64 period, float number, int op,
                                                           bool whole) {
  const int w = Width<T>::n;
  for (i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * w; at < n; at += (i64)gridDim.x * blockDim.x * w) {
    float u[Width<T>::n], v[Width<T>::n];
    load(a, at, n, whole, u);
    if (b && whole) {
      load(b, at % period, period, true, v);
    } else {
#pragma unroll
      for (int k = 0; k < w; ++k) v[k] = !b ? number : at + k < n ? widen(b[(at + k) % period]) : 1.0f;
    }
#pragma unroll
    for (int k = 0; k < w; ++k)
      u[k] = op == PLUS ? u[k] + v[k] : op == MINUS ? u[k] - v[k] : op == TIMES ? u[k] * v[k] : op == OVER ? u[k] / v[k] : v[k] - u[k];
    store(y, at, n, whole, u);
  }
}

#define RG_MAP(NAME, T, LOW, F)                                                                                      \
  extern "C" __global__ void __launch_bounds__(256, 1) LOW##_##NAME(const T* x, T* y, i64 n, int whole) {               \
    map<T, F>(x, y, n, whole);                                                                                       \
  }
#define RG_MAP_GRADIENT(NAME, T, LOW, F)                                                                             \
  RG_MAP(NAME, T, LOW, F)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                                  \
      LOW##_gradient_##NAME(const T* g, const T* x, T* dx, i64 n, int whole) {                                       \
    map_gradient<T, F>(g, x, dx, n, whole);                                                                          \
  }
#define RG_ELEMENTWISE(NAME, T)                                                                                      \
  RG_MAP_GRADIENT(NAME, T, gelu, Gelu)                                                                               \
  RG_MAP_GRADIENT(NAME, T, gelu_tanh, GeluTanh)                                                                      \
  RG_MAP_GRADIENT(NAME, T, silu, Silu)                                                                               \
  RG_MAP_GRADIENT(NAME, T, relu, Relu)                                                                               \
  RG_MAP(NAME, T, sigmoid, Sigmoid)                                                                                  \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                                  \
      combine_##NAME(const T* a, const T* b, T* y, i64 n, i64 period, float number, int op, int whole) {             \
    combine<T>(a, b, y, n, period, number, op, whole);                                                               \
  }
RG_TYPES(RG_ELEMENTWISE)
