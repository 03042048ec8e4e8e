// Runs CUDA kernels compiled as C++ on the host, one fiber a thread, one block after another.
//
// The schedule is fixed and hostile: a warp runs as far as it can before the next one starts, and `order` -1 lets the
// last warp and block go first. A missing __syncthreads() therefore gives wrong numbers in one of the two orders, every
// time; barriers that only a part of a block reaches are an error.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <vector>

#define RG_HOST
#define RG_SHARED static
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct Index { unsigned x = 1, y = 1, z = 1; };
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace fiber {
enum State { READY, AT_WARP, AT_BLOCK, DONE };
struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  State state;
  unsigned id;
};
static std::vector<Fiber> all;
static ucontext_t scheduler;
static Fiber* current;
static std::function<void()> body;
static u64 lanes[32][32];

inline void park(State s) {
  current->state = s;
  swapcontext(&current->context, &scheduler);
  threadIdx.x = current->id;
}

static void enter() {
  body();
  current->state = DONE;
  swapcontext(&current->context, &scheduler);
}

// Lets the warp [lo, hi) run until all its threads are done or wait for the block; whether anything ran.
static bool run_warp(unsigned lo, unsigned hi) {
  bool progress = false;
  for (;;) {
    bool ran = false, blocked = false, waiting = false;
    for (unsigned i = lo; i < hi; i++)
      if (all[i].state == READY) {
        current = &all[i];
        threadIdx.x = i;
        swapcontext(&scheduler, &all[i].context);
        ran = progress = true;
      }
    for (unsigned i = lo; i < hi; i++) {
      blocked |= all[i].state == AT_BLOCK;
      waiting |= all[i].state == AT_WARP;
    }
    if (waiting && blocked) throw std::runtime_error("a warp's threads stand at different barriers");
    if (waiting)
      for (unsigned i = lo; i < hi; i++)
        if (all[i].state == AT_WARP) all[i].state = READY;
    if (!waiting && !ran) return progress;
  }
}

static void run_block(unsigned threads, int order) {
  const unsigned warps = (threads + 31) / 32;
  if (all.size() < threads) all.resize(threads);
  for (unsigned i = 0; i < threads; i++) {
    Fiber& f = all[i];
    f.id = i;
    f.state = READY;
    if (f.stack.empty()) f.stack.resize(65536);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  for (;;) {
    for (unsigned k = 0; k < warps; k++) {
      const unsigned w = order > 0 ? k : warps - 1 - k;
      run_warp(w * 32, std::min(threads, w * 32 + 32));
    }
    unsigned done = 0, blocked = 0;
    for (unsigned i = 0; i < threads; i++) {
      done += all[i].state == DONE;
      blocked += all[i].state == AT_BLOCK;
    }
    if (done == threads) return;
    if (done) throw std::runtime_error("__syncthreads() was reached by a part of the block");
    if (blocked != threads) throw std::runtime_error("the block cannot go on");
    for (unsigned i = 0; i < threads; i++) all[i].state = READY;
  }
}

// 0, or 1 after a message on stderr where a barrier went wrong.
static int launch(unsigned grid, unsigned block, int order, std::function<void()> kernel) {
  gridDim = {grid, 1, 1};
  blockDim = {block, 1, 1};
  body = kernel;
  try {
    for (unsigned i = 0; i < grid; i++) {
      blockIdx = {order > 0 ? i : grid - 1 - i, 0, 0};
      run_block(block, order);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
}  // namespace fiber

inline void __syncthreads() { fiber::park(fiber::AT_BLOCK); }
template <class T> T __shfl_xor_sync(unsigned, T v, int m) {
  const int w = threadIdx.x >> 5, l = threadIdx.x & 31;
  std::memcpy(&fiber::lanes[w][l], &v, sizeof(T));
  fiber::park(fiber::AT_WARP);
  T r;
  std::memcpy(&r, &fiber::lanes[w][l ^ m], sizeof(T));
  fiber::park(fiber::AT_WARP);
  return r;
}
template <class T> T atomicAdd(T* p, T v) { T was = *p; *p += v; return was; }
