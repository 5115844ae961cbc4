// Which tile is worked on when. Tiles that run at the same time share no block of rows or columns,
// so all sums are made in place: no atomics, no buffer per thread, and the same order, hence the
// same bits, for any number of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "cpu/simd.h"
#include "cpu/threads.h"

namespace fastcl::cpu {

enum class Order {
  kTriangle,  // unordered pairs of blocks: a round-robin tournament
  kSquare,    // all pairs, sums along rows and columns: a Latin square
  kRows,      // all pairs, sums along rows only: blocks of rows, columns in chunks
  kChunks,  // a few blocks of rows at a time, of which all tiles are kept: see contrast_chunks.cpp
};

// Tiles of 240 x 240 (230 KB) and the packed rows of both sides stay in an L2 of 512 KB, and the
// products run over them at the same rate as over larger ones.
constexpr int64_t kBlock = 240;
// Up to as many rows and multiplications are one tile: there, rounds and their barriers cost more
// than a second core gains.
constexpr int64_t kOneTile = 256;
constexpr int64_t kAlone = int64_t{1} << 22;
// Blocks come in multiples of this: two and four threads then get equal parts of every round.
constexpr int64_t kEven = 4;
// Items that every round should have to keep many cores busy, where the shape allows it.
constexpr int64_t kItems = 64;

// Memory of the tiles that kChunks keeps.
constexpr int64_t kKept = int64_t{6} << 20;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Length of the equal blocks that n is cut into, whole vectors of every instruction set; even:
// kEven blocks or a multiple, where n has as many vectors.
inline int64_t equal_blocks(int64_t n, int64_t at_most, bool even) {
  int64_t blocks = ceil_div(n, at_most);
  if (even) blocks = ceil_div(blocks, kEven) * kEven;
  return ceil_div(ceil_div(n, blocks), kMostLanes) * kMostLanes;
}

struct Pair {
  int64_t row, col;  // blocks
  int64_t slot;      // which copy of the row sums, where columns are in chunks
};

struct Schedule {
  Order order;
  int64_t rows_per_block, cols_per_block;
  int64_t row_blocks, col_blocks;
  int64_t slots;  // chunks of column blocks
  int64_t group;  // blocks of rows whose tiles are kept

  // row_bytes is what a slot costs per row; all slots together stay below 4 MB.
  Schedule(Order order, int64_t n, int64_t m, int64_t d, int64_t row_bytes)
      : order(order), slots(1), group(0) {
    const bool one = std::max(n, m) <= kOneTile && n * m * d <= kAlone;
    // Sums run along both sides: a round has as many items as the shorter one has blocks.
    const bool even = !one && order != Order::kRows;
    const int64_t most = even ? kBlock : kOneTile;
    rows_per_block = equal_blocks(n, most, even);
    cols_per_block = order == Order::kTriangle ? rows_per_block : equal_blocks(m, most, even);
    row_blocks = ceil_div(n, rows_per_block);
    col_blocks = ceil_div(m, cols_per_block);
    if (order == Order::kRows) {
      const int64_t affordable = std::max<int64_t>(1, (4 << 20) / (n * row_bytes));
      slots = std::min({col_blocks, ceil_div(kItems, row_blocks), affordable});
    }
    if (order == Order::kChunks) keep_tiles(n, row_bytes, one ? kBlock : equal_blocks(n, n, true));
  }

  int64_t rounds() const {
    if (order == Order::kRows) return 1;
    return order == Order::kSquare ? std::max(row_blocks, col_blocks) : row_blocks;
  }

  int64_t items(int64_t round) const {
    if (order == Order::kRows) return row_blocks * slots;
    if (order == Order::kChunks) return group * col_blocks;
    if (order == Order::kSquare) return std::min(row_blocks, col_blocks);
    return row_blocks % 2 == 0 && round == row_blocks - 1 ? row_blocks : (row_blocks + 1) / 2;
  }

  template <typename F>
  void visit(int64_t round, int64_t item, const F& f) const {
    if (order == Order::kTriangle) return f(tournament(round, item));
    if (order == Order::kSquare) {
      if (row_blocks <= col_blocks) return f(Pair{item, (item + round) % col_blocks, 0});
      return f(Pair{(item + round) % row_blocks, item, 0});
    }
    const int64_t row = item / slots, slot = item % slots;
    const int64_t end = (slot + 1) * col_blocks / slots;
    for (int64_t col = slot * col_blocks / slots; col < end; ++col) f(Pair{row, col, slot});
  }

 private:
  // Chunks of rows whose tiles stay below kKept together, in equal blocks; a row takes row_bytes.
  void keep_tiles(int64_t n, int64_t row_bytes, int64_t at_most) {
    const int64_t kept = kKept / row_bytes / kMostLanes * kMostLanes;
    const int64_t chunk = equal_blocks(n, std::max(kMostLanes, kept), false);
    rows_per_block = equal_blocks(chunk, std::min(kBlock, at_most), false);
    row_blocks = ceil_div(n, rows_per_block);
    group = ceil_div(chunk, rows_per_block);
  }

  // The circle method: one player stays, the others move on by one every round. The one without a
  // partner, where their number is odd, meets itself; where it is even, all do in a last round.
  Pair tournament(int64_t round, int64_t item) const {
    const bool odd = row_blocks % 2 == 1;
    const int64_t circle = odd ? row_blocks : row_blocks - 1;
    if (round == circle) return {item, item, 0};
    if (item == 0) {
      return odd ? Pair{round, round, 0} : Pair{round, circle, 0};
    }
    const int64_t a = (round + item) % circle, b = (round - item + circle) % circle;
    return {std::min(a, b), std::max(a, b), 0};
  }
};

// f(item, worker) for all items, which touch nothing in common. Workers take the next one as they
// come to it: a slow core delays the rest by one item at most.
template <typename F>
void run_items(int64_t items, int64_t workers, const F& f) {
  std::atomic<int64_t> next{0};
  parallel(std::min(workers, items), [&](int64_t worker) {
    for (int64_t item = next++; item < items; item = next++) f(item, worker);
  });
}

// f(pair, worker) for all pairs of the schedule.
template <typename F>
void run(const Schedule& schedule, int64_t workers, const F& f) {
  for (int64_t round = 0; round < schedule.rounds(); ++round) {
    run_items(schedule.items(round), workers, [&](int64_t item, int64_t worker) {
      schedule.visit(round, item, [&](const Pair& pair) { f(pair, worker); });
    });
  }
}

}  // namespace fastcl::cpu
