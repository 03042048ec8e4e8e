// Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405): random words that are a function of a counter.
//
// key = seed; counter = (element / 4, draw), so every call has a stream of its own and every element its place in it:
// the same numbers on every device, for every launch shape. `state` (seed, base) is added where it is given: a captured
// graph reads it, and moves base on at its end.
#pragma once
#include "common.cuh"

struct Words { u32 v[4]; };

__device__ __forceinline__ Words philox(u64 seed, u64 block, u64 draw) {
  u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
  u32 c0 = (u32)block, c1 = (u32)(block >> 32), c2 = (u32)draw, c3 = (u32)(draw >> 32);
#pragma unroll
  for (int i = 0; i < 10; ++i) {
    const u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
    const u32 n0 = (u32)(p1 >> 32) ^ c1 ^ k0, n2 = (u32)(p0 >> 32) ^ c3 ^ k1;
    c1 = (u32)p1; c3 = (u32)p0; c0 = n0; c2 = n2;
    k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
  }
  Words w; w.v[0] = c0; w.v[1] = c1; w.v[2] = c2; w.v[3] = c3;
  return w;
}

struct Stream { u64 seed, draw; };
__device__ __forceinline__ Stream stream_of(i64 seed, i64 draw, const i64* state) {
  Stream s;
  s.seed = state ? (u64)state[0] : (u64)seed;
  s.draw = (u64)draw + (state ? (u64)state[1] : 0);
  return s;
}
