// Tiles of info_nce: similarities through BLAS, ids as codes, rows of half precision in slices.
#include <cstring>

#include "cpu/info_nce.h"

namespace fastcl::cpu {

template <typename T>
Tiles<T>::Tiles(const InfoNce& x, const Schedule& schedule)
    : schedule(schedule),
      workers(std::min<int64_t>(thread_count(), schedule.items(0))),
      scale(scale_of<T>(x.scale)),
      x_(x),
      scratch_(workers) {
  for (Scratch& scratch : scratch_) {
    scratch.tile = Buffer<T>(schedule.rows_per_block * schedule.cols_per_block);
    if (native()) continue;
    scratch.wide[kQ] = Buffer<T>(schedule.rows_per_block * slice());
    scratch.wide[kK] = Buffer<T>(schedule.cols_per_block * slice());
  }
  encode();
}

namespace {

// Ids as numbers from 0 that fit the lanes of T: by subtraction, or by rank where they are too far
// apart. A row id that no column has becomes a number that no column has.
template <typename C>
void to_codes(const InfoNce& x, C* rows, C* cols) {
  const auto [row_least, row_most] = std::minmax_element(x.row_ids, x.row_ids + x.n);
  const auto [col_least, col_most] = std::minmax_element(x.col_ids, x.col_ids + x.m);
  const uint64_t least = std::min(*row_least, *col_least), most = std::max(*row_most, *col_most);
  if (most - least <= static_cast<uint64_t>(std::numeric_limits<C>::max())) {
    for (int64_t i = 0; i < x.n; ++i) rows[i] = static_cast<C>(x.row_ids[i] - least);
    for (int64_t j = 0; j < x.m; ++j) cols[j] = static_cast<C>(x.col_ids[j] - least);
    return;
  }
  std::vector<int64_t> sorted(x.col_ids, x.col_ids + x.m);
  std::sort(sorted.begin(), sorted.end());
  const auto code = [&](int64_t id) {
    const auto at = std::lower_bound(sorted.begin(), sorted.end(), id);
    return static_cast<C>(at != sorted.end() && *at == id ? at - sorted.begin() : sorted.size());
  };
  for (int64_t i = 0; i < x.n; ++i) rows[i] = code(x.row_ids[i]);
  for (int64_t j = 0; j < x.m; ++j) cols[j] = code(x.col_ids[j]);
}

}  // namespace

template <typename T>
void Tiles<T>::encode() {
  row_codes_ = Buffer<Code<T>>(x_.n, 0);
  col_codes_ = Buffer<Code<T>>(x_.m, -1);
  if (x_.row_ids == nullptr) return;
  to_codes(x_, row_codes_.data(), col_codes_.data());
  const auto ranges = [](const Code<T>* codes, int64_t size, int64_t block) {
    std::vector<Range> found;
    for (int64_t i = 0; i < size; i += block) {
      const auto [least, most] =
          std::minmax_element(codes + i, codes + std::min(size, i + block));
      found.push_back({*least, *most});
    }
    return found;
  };
  row_ranges_ = ranges(row_codes_.data(), x_.n, schedule.rows_per_block);
  col_ranges_ = ranges(col_codes_.data(), x_.m, schedule.cols_per_block);
}

template <typename T>
bool Tiles<T>::may_match(const Pair& pair) const {
  if (x_.symmetric && row_begin(pair.row) < col_begin(pair.col) + schedule.cols_per_block &&
      col_begin(pair.col) < row_begin(pair.row) + schedule.rows_per_block) {
    return true;
  }
  if (x_.row_ids == nullptr) return false;
  const Range row = row_ranges_[pair.row], col = col_ranges_[pair.col];
  return row.least <= col.most && col.least <= row.most;
}

template <typename T>
Match<T> Tiles<T>::match(const Pair& pair) const {
  const int64_t row = row_begin(pair.row), col = col_begin(pair.col);
  const int64_t nowhere = -(int64_t{1} << 30);
  // Blocks that are far apart must not wrap around in 32 bits.
  const int64_t self = x_.symmetric ? std::clamp(row - col, nowhere, -nowhere) : nowhere;
  return {row_codes_.data() + row, col_codes_.data() + col, self};
}

template <typename T>
View<const T> Tiles<T>::operand(Side side, int64_t block, int64_t from, int64_t worker) {
  const int64_t length = side == kQ ? schedule.rows_per_block : schedule.cols_per_block;
  const int64_t first = block * length, size = side == kQ ? x_.n : x_.m;
  const int64_t rows = std::min(length, size - first), cols = std::min(slice(), x_.d - from);
  const void* source = side == kQ ? x_.q : x_.k;
  if (native()) {
    return {static_cast<const T*>(source) + first * x_.d + from, rows, cols, x_.d, 1};
  }
  Scratch& scratch = scratch_[worker];
  T* wide = scratch.wide[side].data();
  int64_t* held = scratch.held[side];
  if (held[0] != block || held[1] != from) {
    simd<T>().widen(x_.element, static_cast<const uint16_t*>(source) + first * x_.d + from, rows,
                    cols, x_.d, wide);
    held[0] = block;
    held[1] = from;
  }
  return {wide, rows, cols, cols, 1};
}

template <typename T>
Tile<T> Tiles<T>::similarities(const Pair& pair, int64_t worker) {
  const int64_t row = row_begin(pair.row), col = col_begin(pair.col);
  const Tile<T> tile{scratch_[worker].tile.data(), std::min(schedule.rows_per_block, x_.n - row),
                     std::min(schedule.cols_per_block, x_.m - col), schedule.cols_per_block};
  // Processors with bfloat16 products would take rows of half precision here as they are.
  for (int64_t from = 0; from < x_.d; from += slice()) {
    const View<T> out{tile.s, tile.rows, tile.cols, tile.stride, 1};
    product(operand(kQ, pair.row, from, worker),
            operand(kK, pair.col, from, worker).transposed(), out, from > 0);
  }
  const int64_t padded = std::min(tile.stride, tile.cols + kPadding);
  for (int64_t i = 0; padded > tile.cols && i < tile.rows; ++i) {
    std::fill(tile.s + i * tile.stride + tile.cols, tile.s + i * tile.stride + padded,
              -std::numeric_limits<T>::infinity());
  }
  return tile;
}

template <typename T>
void Tiles<T>::multiply(const View<const T>& tile, Side side, int64_t block, int64_t worker,
                        T* out) {
  for (int64_t from = 0; from < x_.d; from += slice()) {
    const View<const T> rows = operand(side, block, from, worker);
    product(tile, rows, View<T>{out + from, tile.rows, rows.cols, x_.d, 1}, true);
  }
}

template <typename T>
void Tiles<T>::times_k(const Tile<T>& tile, const Pair& pair, int64_t worker, T* out) {
  const View<const T> view{tile.s, tile.rows, tile.cols, tile.stride, 1};
  multiply(view, kK, pair.col, worker, out);
}

template <typename T>
void Tiles<T>::times_q(const Tile<T>& tile, const Pair& pair, int64_t worker, T* out) {
  const View<const T> view{tile.s, tile.rows, tile.cols, tile.stride, 1};
  multiply(view.transposed(), kQ, pair.row, worker, out);
}

template class Tiles<float>;
template class Tiles<double>;

}  // namespace fastcl::cpu
