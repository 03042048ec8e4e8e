// Sums over channels of (N, C, L), in index order or with the channels last in memory, and batch norm from them. Sums are
// taken in two steps, blocks then their partial sums, in a fixed order: the same bits every time.
#include "common.cuh"

// Where element i of channel c lies; i counts through samples and places.
__device__ __forceinline__ i64 place(i64 i, i64 c, i64 channels, i64 length, bool last) {
  return last ? i * channels + c : (i / length * channels + c) * length + i % length;
}

// One block sums a part of 32 channels (channels last: a row of threads reads neighbours) or of one. Without g: sums of x
// and of (x - mean)^2; with g: of g and of g (x - mean).
template <class T>
__device__ __forceinline__ void channel_partial(const T* x, const T* g, const float* mean, float* partial, i64 count,
                                                i64 channels, i64 length, i64 splits, bool last) {
  RG_SHARED float first[256], second[256];
  const i64 groups = last ? (channels + 31) / 32 : channels;
  const i64 group = (i64)blockIdx.x % groups, split = (i64)blockIdx.x / groups;
  const i64 c = last ? group * 32 + (threadIdx.x & 31) : group;
  const i64 lane = last ? threadIdx.x >> 5 : threadIdx.x, lanes = last ? 8 : 256;
  const i64 each = (count + splits - 1) / splits;
  const i64 begin = split * each, end = begin + each < count ? begin + each : count;
  float a = 0.0f, b = 0.0f;
  if (c < channels) {
    const float m = mean ? mean[c] : 0.0f;
    for (i64 i = begin + lane; i < end; i += lanes) {
      const i64 at = place(i, c, channels, length, last);
      const float d = widen(x[at]) - m;
      if (g) {
        const float v = widen(g[at]);
        a += v;
        b += v * d;
      } else {
        a += d + m;
        b += d * d;
      }
    }
  }
  first[threadIdx.x] = a;
  second[threadIdx.x] = b;
  __syncthreads();
  const u32 least = last ? 32 : 1;
  for (u32 step = 128; step >= least; step /= 2) {
    if (threadIdx.x < step) {
      first[threadIdx.x] += first[threadIdx.x + step];
      second[threadIdx.x] += second[threadIdx.x + step];
    }
    __syncthreads();
  }
  if (threadIdx.x < least && c < channels) {
    partial[split * 2 * channels + c] = first[threadIdx.x];
    partial[split * 2 * channels + channels + c] = second[threadIdx.x];
  }
}

extern "C" __global__ void __launch_bounds__(256, 1)
    channel_finish(const float* partial, float* a, float* b, i64 channels, i64 splits, float scale) {
  const i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= 2 * channels) return;
  float s = 0.0f;
  for (i64 k = 0; k < splits; ++k) s += partial[k * 2 * channels + at];
  if (at < channels) { if (a) a[at] = s * scale; }
  else if (b) b[at - channels] = s * scale;
}

// y = x factor + shift, or with g: y = g factor + x slope + shift, by channel
template <class T>
__device__ __forceinline__ void channel_line(const T* x, const T* g, T* y, const float* factor, const float* slope,
                                             const float* shift, i64 n, i64 channels, i64 length, bool last, bool whole) {
  const int w = Width<T>::n;
  for (i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * w; at < n; at += (i64)gridDim.x * blockDim.x * w) {
    float v[Width<T>::n], u[Width<T>::n];
    load(x, at, n, whole, v);
    if (g) load(g, at, n, whole, u);
#pragma unroll
    for (int k = 0; k < w; ++k) {
      const i64 c = last ? (at + k) % channels : (at + k) / length % channels;
      v[k] = g ? u[k] * factor[c] + v[k] * slope[c] + shift[c] : v[k] * factor[c] + shift[c];
    }
    store(y, at, n, whole, v);
  }
}

#define RG_CHANNEL(NAME, T)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                               \
      channel_partial_##NAME(const T* x, const T* g, const float* mean, float* partial, i64 count, i64 channels,     \
                             i64 length, i64 splits, int last) {                                                     \
    channel_partial<T>(x, g, mean, partial, count, channels, length, splits, last);                                  \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                               \
      channel_line_##NAME(const T* x, const T* g, T* y, const float* factor, const float* slope, const float* shift, \
                          i64 n, i64 channels, i64 length, int last, int whole) {                                    \
    channel_line<T>(x, g, y, factor, slope, shift, n, channels, length, last, whole);                                \
  }
RG_TYPES(RG_CHANNEL)
