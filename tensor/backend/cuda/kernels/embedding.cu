// Rows of a table by their numbers, and the gradient: sums of the rows of g that went to equal numbers, in ascending order
// of position, so that the result does not depend on scheduling.
#include "common.cuh"

template <class T>
__device__ __forceinline__ void gather_row(const i64* index, const T* table, T* y, i64 rows, i64 width, i64* record, i64 r, bool whole) {
  i64 t = index[r];
  if (t < 0 || t >= rows) {
    if (threadIdx.x == 0) { record[1] = t; record[2] = rows; record[0] = 1; }
    t = 0;
  }
  const int n = Width<T>::n;
  const T* from = table + t * width;
  T* to = y + r * width;
  for (i64 at = (i64)threadIdx.x * n; at < width; at += (i64)blockDim.x * n) {
    if (whole) {
      *reinterpret_cast<Pack<T>*>(to + at) = *reinterpret_cast<const Pack<T>*>(from + at);
    } else {
      for (int k = 0; k < n; ++k)
        if (at + k < width) to[at + k] = from[at + k];
    }
  }
}

// order[start[t] + rank]: the positions of number t, ascending. rank = how many equal numbers stand before, counted by
// comparing a block's numbers with all before them, tile by tile.
extern "C" __global__ void __launch_bounds__(256, 1) embedding_rank(const i64* index, i64 n, i64 rows, u32* rank, u32* count) {
  RG_SHARED i64 tile[256];
  const i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
  const i64 mine = at < n ? index[at] : -1;
  u32 before = 0;
  for (i64 from = 0; from < (i64)(blockIdx.x + 1) * 256; from += 256) {
    __syncthreads();
    tile[threadIdx.x] = from + threadIdx.x < n ? index[from + threadIdx.x] : -2;
    __syncthreads();
    const int upto = from + 256 <= at ? 256 : (int)(at - from);
    for (int k = 0; k < upto; ++k) before += tile[k] == mine;
  }
  if (at < n) {
    rank[at] = before;
    if (mine >= 0 && mine < rows) atomicAdd(count + mine, 1u);  // whole numbers: any order gives the same
  }
}

// start[t] = count[0] + ... + count[t - 1], by one block
extern "C" __global__ void __launch_bounds__(1024, 1) embedding_starts(const u32* count, u32* start, i64 rows) {
  RG_SHARED u32 held[1024];
  u32 carry = 0;
  for (i64 from = 0; from < rows; from += 1024) {
    const i64 at = from + threadIdx.x;
    const u32 mine = at < rows ? count[at] : 0;
    held[threadIdx.x] = mine;
    __syncthreads();
    for (u32 d = 1; d < 1024; d *= 2) {
      const u32 add = threadIdx.x >= d ? held[threadIdx.x - d] : 0;
      __syncthreads();
      held[threadIdx.x] += add;
      __syncthreads();
    }
    if (at < rows) start[at] = carry + held[threadIdx.x] - mine;
    carry += held[1023];
    __syncthreads();
  }
}

extern "C" __global__ void __launch_bounds__(256, 1)
    embedding_order(const i64* index, i64 n, i64 rows, const u32* rank, const u32* start, u32* order) {
  const i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
  if (at < n && index[at] >= 0 && index[at] < rows) order[start[index[at]] + rank[at]] = (u32)at;
}

template <class T>
__device__ __forceinline__ void sum_row(const T* g, const u32* order, u32 begin, u32 count, T* out, i64 width, bool whole) {
  const int n = Width<T>::n;
  for (i64 at = (i64)threadIdx.x * n; at < width; at += (i64)blockDim.x * n) {
    float sum[Width<T>::n];
#pragma unroll
    for (int k = 0; k < n; ++k) sum[k] = 0.0f;
#pragma unroll 4
    for (u32 j = 0; j < count; ++j) {
      float v[Width<T>::n];
      load(g + (i64)order[begin + j] * width, at, width, whole, v);
#pragma unroll
      for (int k = 0; k < n; ++k) sum[k] += v[k];
    }
    store(out, at, width, whole, sum);
  }
}

#define RG_EMBEDDING(NAME, T)                                                                                        \
  extern "C" __global__ void __launch_bounds__(128, 1)                                                                  \
      embedding_##NAME(const i64* index, const T* table, T* y, i64 n, i64 rows, i64 width, i64* record, int whole) { \
    for (i64 r = blockIdx.x; r < n; r += gridDim.x) gather_row<T>(index, table, y, rows, width, record, r, whole);   \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(128, 1)                                                                  \
      embedding_gradient_##NAME(const T* g, const u32* order, const u32* start, const u32* count, T* out, i64 rows,  \
                                i64 width, i64 padding, int whole) {                                                 \
    for (i64 t = blockIdx.x; t < rows; t += gridDim.x)                                                               \
      sum_row<T>(g, order, start[t], t == padding ? 0u : count[t], out + t * width, width, whole);                   \
  }
RG_TYPES(RG_EMBEDDING)
