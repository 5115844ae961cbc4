// A grid on the host: every thread of a block is a fiber that runs until it waits for others. The
// blocks of a cluster run at the same time, clusters one after another, both in random order.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

extern "C" inline unsigned emulated_seed = 1;  // of the order in which things happen

namespace emulated {

struct Dim {
  unsigned x, y, z;
};

// Where threads wait for each other.
struct Meeting {
  unsigned here = 0, round = 0;
};

struct Group;  // of products, see hopper_on_host.h

struct Warp {
  Meeting meeting;
  uint64_t lanes[2][32];  // by turns: a lane may write the next value before all have read the last
};

struct Block {
  unsigned index, threads, living;
  std::unique_ptr<uint8_t, decltype(&std::free)> memory{nullptr, std::free};  // dynamic shared
  std::map<int, std::vector<uint8_t>> variables;                              // static shared
  std::map<int, Meeting> meetings;                                            // 0: __syncthreads
  std::map<unsigned, Warp> warps;
  std::map<unsigned, std::vector<std::shared_ptr<Group>>> groups;  // of each warpgroup
};

struct Fiber {
  ucontext_t context;
  unsigned thread;
  Block* block;
  Warp* warp;
  const std::function<bool()>* awaited = nullptr;
  unsigned exchanges = 0;  // with its warp
  size_t groups = 0;       // of products that it has committed
  bool done = false;
};

constexpr size_t kStack = 1 << 16;
constexpr size_t kMostShared = 227 << 10;  // compute capability 9.0

inline unsigned cluster_size = 1;  // a launch is of whole clusters
inline std::string failure;        // of the launch
inline unsigned grid;
inline std::vector<Block> blocks;  // of the cluster that runs
inline Meeting cluster_meeting;
inline std::vector<std::function<void()>> in_flight;  // copies on their way, in no order
inline std::vector<Fiber> fibers;
inline Fiber* now;
inline ucontext_t scheduler;
inline const std::function<void()>* kernel;
inline std::mt19937 random;

inline void wait_until(const std::function<bool()>& ready) {
  now->awaited = &ready;
  swapcontext(&now->context, &scheduler);
  now->awaited = nullptr;
}

// The thread goes no further, and the launch has failed.
inline void fail(const std::string& what) {
  failure = what + ", thread " + std::to_string(now->thread) + " of block " +
            std::to_string(now->block->index);
  wait_until([] { return false; });
}

inline void announce(Meeting& meeting, unsigned threads) {
  if (++meeting.here == threads) meeting.here = 0, ++meeting.round;
}

inline void meet(Meeting& meeting, unsigned threads) {
  const unsigned round = meeting.round;
  announce(meeting, threads);
  wait_until([&meeting, round] { return meeting.round != round; });
}

template <typename T>
T exchange(T x, int mask) {
  const unsigned lane = now->thread % 32;
  Warp& warp = *now->warp;
  uint64_t* lanes = warp.lanes[now->exchanges++ % 2];
  std::memcpy(&lanes[lane], &x, sizeof(T));
  meet(warp.meeting, 32);
  std::memcpy(&x, &lanes[lane ^ mask], sizeof(T));
  return x;
}

// A shared variable of the block, one per line of the source: all ones before it is written.
template <typename T, int line>
T& variable() {
  auto& bytes = now->block->variables[line];
  if (bytes.empty()) bytes.assign(sizeof(T), 0xFF);
  return *reinterpret_cast<T*>(bytes.data());
}

inline void enter() {
  (*kernel)();
  now->done = true;
  --now->block->living;
  swapcontext(&now->context, &scheduler);
}

inline void begin_cluster(unsigned first, unsigned threads, size_t bytes) {
  static std::vector<std::unique_ptr<char[]>> stacks;
  blocks.clear();
  blocks.resize(cluster_size);
  fibers.clear();
  fibers.resize(cluster_size * threads);
  cluster_meeting = {};
  in_flight.clear();
  for (unsigned i = 0; i < cluster_size; ++i) {
    const size_t room = (bytes / 1024 + 1) * 1024;
    blocks[i].index = first + i;
    blocks[i].threads = blocks[i].living = threads;
    blocks[i].memory.reset(static_cast<uint8_t*>(std::aligned_alloc(1024, room)));
    std::memset(blocks[i].memory.get(), 0xFF, room);  // NaN in every floating-point type
  }
  for (unsigned i = 0; i < fibers.size(); ++i) {
    if (stacks.size() == i) stacks.emplace_back(new char[kStack]);
    fibers[i].thread = i % threads;
    fibers[i].block = &blocks[i / threads];
    fibers[i].warp = &fibers[i].block->warps[fibers[i].thread / 32];
    getcontext(&fibers[i].context);
    fibers[i].context.uc_stack.ss_sp = stacks[i].get();
    fibers[i].context.uc_stack.ss_size = kStack;
    makecontext(&fibers[i].context, enter, 0);
  }
}

inline void land_one_copy() {
  const size_t i = random() % in_flight.size();
  const auto copy = in_flight[i];
  in_flight.erase(in_flight.begin() + i);
  copy();
}

// Rounds over the fibers, each from another one on. One warp is held back while others move, for a
// while; between rounds copies land, sometimes.
inline void run_cluster() {
  std::vector<Fiber*> order;
  for (Fiber& fiber : fibers) order.push_back(&fiber);
  std::shuffle(order.begin(), order.end(), random);
  const Warp* held = nullptr;
  for (bool left = true; left && failure.empty();) {
    std::rotate(order.begin(), order.begin() + random() % order.size(), order.end());
    bool moved = left = false;
    for (Fiber* fiber : order) {
      if (fiber->done) continue;
      left = true;
      if (fiber->warp == held) continue;
      if (fiber->awaited != nullptr && !(*fiber->awaited)()) continue;
      moved = true;
      now = fiber;
      swapcontext(&scheduler, &fiber->context);
      if (!failure.empty()) return;
    }
    if (!in_flight.empty() && (!moved || random() % 3 == 0)) {
      moved = true;
      land_one_copy();
    }
    if (left && !moved && held == nullptr) failure = "threads wait that nobody wakes";
    if (!moved) {
      held = nullptr;
    } else if (held == nullptr || random() % 128 == 0) {
      held = order[random() % order.size()]->warp;
    }
  }
  if (failure.empty() && !in_flight.empty())
    failure = "copies are under way to blocks that are gone";
}

template <typename Kernel>
void launch(unsigned size, unsigned threads, size_t bytes, const void*, const Kernel& body) {
  const std::function<void()> call = body;
  kernel = &call;
  grid = size;
  failure = size % cluster_size == 0 ? "" : "the grid is not of whole clusters";
  random.seed(emulated_seed);
  std::vector<unsigned> order;
  for (unsigned first = 0; first < size; first += cluster_size) order.push_back(first);
  std::shuffle(order.begin(), order.end(), random);
  for (unsigned first : order) {
    if (!failure.empty()) return;
    begin_cluster(first, threads, bytes);
    run_cluster();
  }
}

}  // namespace emulated
