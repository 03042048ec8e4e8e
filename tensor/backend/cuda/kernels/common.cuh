// What all kernels share: 16-byte accesses, 16-bit floats with float32 arithmetic, sums over a block.
//
// No CUDA header is included, so that NVRTC needs no include path; the same text compiles as C++ for the host
// (RG_HOST, tests/host/), where one fiber runs each thread.
#pragma once
#ifndef RG_HOST
#define RG_SHARED __shared__
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
#endif

struct alignas(2) f16 { u16 bits; };
struct alignas(2) bf16 { u16 bits; };

template <class T> struct alignas(16) Pack { T v[16 / sizeof(T)]; };
template <class T> struct Width { static const int n = 16 / sizeof(T); };

#ifdef RG_HOST
static inline float widen(f16 x) { _Float16 h; __builtin_memcpy(&h, &x, 2); return (float)h; }
static inline f16 to_f16(float x) { _Float16 h = (_Float16)x; f16 y; __builtin_memcpy(&y, &h, 2); return y; }
static inline bf16 to_bf16(float x) {
  u32 b; __builtin_memcpy(&b, &x, 4);
  bf16 y;
  y.bits = x != x ? (u16)0x7fff : (u16)((b + 0x7fff + ((b >> 16) & 1)) >> 16);
  return y;
}
static inline float as_float(u32 b) { float x; __builtin_memcpy(&x, &b, 4); return x; }
#else
__device__ __forceinline__ float widen(f16 x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits)); return y; }
__device__ __forceinline__ f16 to_f16(float x) { f16 y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }
__device__ __forceinline__ bf16 to_bf16(float x) { bf16 y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }
__device__ __forceinline__ float as_float(u32 b) { return __uint_as_float(b); }
#endif
#define RG_INFINITY as_float(0x7f800000u)
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return as_float((u32)x.bits << 16); }

template <class T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ f16 narrow<f16>(float x) { return to_f16(x); }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) { return to_bf16(x); }

// Elements [at, at + n) of 16 bytes, as float32; `whole` says that all are there and the address is aligned.
template <class T> __device__ __forceinline__ void load(const T* p, i64 at, i64 end, bool whole, float* out) {
  const int n = Width<T>::n;
  if (whole && at + n <= end) {
    Pack<T> raw = *reinterpret_cast<const Pack<T>*>(p + at);
#pragma unroll
    for (int k = 0; k < n; ++k) out[k] = widen(raw.v[k]);
  } else {
#pragma unroll
    for (int k = 0; k < n; ++k) out[k] = at + k < end ? widen(p[at + k]) : 0.0f;
  }
}

template <class T> __device__ __forceinline__ void store(T* p, i64 at, i64 end, bool whole, const float* in) {
  const int n = Width<T>::n;
  if (whole && at + n <= end) {
    Pack<T> raw;
#pragma unroll
    for (int k = 0; k < n; ++k) raw.v[k] = narrow<T>(in[k]);
    *reinterpret_cast<Pack<T>*>(p + at) = raw;
  } else {
#pragma unroll
    for (int k = 0; k < n; ++k)
      if (at + k < end) p[at + k] = narrow<T>(in[k]);
  }
}

struct Add { __device__ __forceinline__ static float of(float a, float b) { return a + b; } };
struct Max { __device__ __forceinline__ static float of(float a, float b) { return a != a ? a : b != b ? b : (a > b ? a : b); } };

// Over the whole block, in a fixed order; every thread gets the result. blockDim.x is a multiple of 32, at most 1024.
// Negative zero and -inf are the neutral elements that idle lanes carry.
template <class F> __device__ __forceinline__ float over_block(float x, float neutral) {
  RG_SHARED float held[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
#pragma unroll
  for (int m = 16; m; m >>= 1) x = F::of(x, __shfl_xor_sync(0xffffffffu, x, m));
  __syncthreads();  // what an earlier call left may still be read
  if (lane == 0) held[warp] = x;
  __syncthreads();
  x = lane < warps ? held[lane] : neutral;
#pragma unroll
  for (int m = 16; m; m >>= 1) x = F::of(x, __shfl_xor_sync(0xffffffffu, x, m));
  return x;
}

// One name a type: the C names that the host looks up.
#define RG_TYPES(X) X(f32, float) X(f16, f16) X(bf16, bf16)
