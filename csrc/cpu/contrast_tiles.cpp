// Tiles of a contrast: products of packed rows, which are normalised and widened on the way, and
// ids as codes.
#include "cpu/contrast.h"

namespace fastcl::cpu {

template <typename T>
RowTable<T>::RowTable(Dtype dtype, const Rows& rows, const T* lengths, int64_t n, int64_t d,
                      bool scaled)
    : dtype_(dtype), scaled_(scaled) {
  rows_.reserve(n);
  for (const Rows::Part& part : rows.parts) {
    for (int64_t i = 0; i < part.size; ++i) {
      rows_.push_back(static_cast<const char*>(part.data) + i * d * size_of(dtype));
    }
  }
  if (!scaled_) return;
  factors_ = Buffer<T>(n);
  for (int64_t i = 0; i < n; ++i) {
    // As torch's normalize; a NaN passes on.
    const T length = lengths != nullptr ? lengths[i] : T(1);
    factors_[i] = 1 / (length < T(kShortest) ? T(kShortest) : length);
  }
}

template <typename T>
const T* RowTable<T>::in_place(int64_t first, int64_t size, int64_t d) const {
  constexpr Dtype native = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kFloat64;
  if (dtype_ != native) return nullptr;
  const T* begin = static_cast<const T*>(rows_[first]);
  for (int64_t i = 1; i < size; ++i) {
    if (rows_[first + i] != begin + i * d) return nullptr;
  }
  return begin;
}

template class RowTable<float>;
template class RowTable<double>;

template <typename T>
Tiles<T>::Tiles(const Divided<T>& x, const Schedule& schedule, bool odd)
    : schedule(schedule),
      workers(std::min<int64_t>(thread_count(), schedule.items(0))),
      scale(scale_of<T>(x.scale)),
      x_(x),
      q_(x.dtype, x.q, x.q_lengths, x.n, x.d, x.divided()),
      k_(x.dtype, x.k, x.k_lengths, x.m, x.d, x.divided()),
      pairs_(x.dtype == Dtype::kBFloat16 && x.d % 2 == 0 && !odd ? pair_kernel() : nullptr),
      scratch_(workers) {
  const int64_t rows = schedule.rows_per_block, cols = schedule.cols_per_block;
  const bool kept = schedule.order == Order::kChunks;  // the caller has memory for the tiles
  const int64_t longer = std::max(rows, cols) + kPadding;
  for (Scratch& scratch : scratch_) {
    if (!kept) scratch.tile = Buffer<T>(tile_size());
    if (pairs_ != nullptr) {
      const int64_t wide = std::min(x.d, kPairSlice), most = std::max(rows, cols);
      const int64_t depth = std::max(whole_squares(wide / 2), whole_squares((most + 1) / 2));
      scratch.a = Buffer<uint32_t>((most + 2 * kSide) * depth);
      scratch.b = Buffer<uint32_t>((std::max(cols, wide) + kPanel) * depth);
      scratch.mixed = Buffer<uint32_t>(depth * cols);
      continue;
    }
    const int64_t depth = std::min(x.d, kSlice);
    scratch.panels = Buffer<T>(longer * (depth + kPadding));
    if (!q_.in_place(0, x.n, x.d)) scratch.copy = Buffer<T>(rows * depth);
  }
  encode();
  if (x.limit == nullptr) return;
  limit_ = Buffer<T>(x.n);
  for (int64_t i = 0; i < x.n; ++i) limit_[i] = static_cast<T>(x.limit[i]);
  if (!x.has_guide()) return;
  Divided<T> guide{};
  guide.dtype = x.guide_dtype;
  guide.q = x.guide_q;
  guide.k = x.guide_k;
  guide.n = x.n;
  guide.m = x.m;
  guide.d = x.guide_d;
  guide.scale = 1;
  std::vector<T> q_lengths(x.n), k_lengths(x.m);
  row_lengths<T>(guide.dtype, guide.q, guide.d, q_lengths.data());
  row_lengths<T>(guide.dtype, guide.k, guide.d, k_lengths.data());
  guide.q_lengths = q_lengths.data();
  guide.k_lengths = k_lengths.data();
  guide_ = std::make_unique<Tiles<T>>(guide, schedule);
  for (Scratch& scratch : scratch_) scratch.judge = Buffer<T>(tile_size());
}

namespace {

// Ids as numbers from 0 that fit the lanes of T: by subtraction, or by rank where they are too far
// apart. A row id that no column has becomes a number that no column has.
template <typename C>
void to_codes(const Problem& x, C* rows, C* cols) {
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
      const auto [least, most] = std::minmax_element(codes + i, codes + std::min(size, i + block));
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
const T* Tiles<T>::left(int64_t block, Features of, Scratch& scratch, int64_t* stride) {
  const int64_t first = row_begin(block), rows = rows_of(block), cols = of.end - of.begin;
  if (const T* in_place = q_.in_place(first, rows, x_.d)) {
    *stride = x_.d;
    return in_place + of.begin;
  }
  if (scratch.block != block || cols < x_.d) {
    simd<T>().copy_rows(q_.plain(first, rows), of.begin, cols, scratch.copy.data());
    scratch.block = cols < x_.d ? -1 : block;
  }
  *stride = cols;
  return scratch.copy.data();
}

template <typename T>
Tile<T> Tiles<T>::tile(const Pair& pair, T* at) const {
  return {at, rows_of(pair.row), cols_of(pair.col), schedule.cols_per_block + kPadding};
}

template <typename T>
void Tiles<T>::multiply(const Tile<T>& tile, const Pair& pair, int64_t worker, Features of,
                        bool accumulate) {
  Scratch& scratch = scratch_[worker];
  if constexpr (sizeof(T) == 4) {
    if (pairs_ != nullptr) return pair_multiply(tile, pair, scratch, of, accumulate);
  }
  const int64_t row = row_begin(pair.row), col = col_begin(pair.col);
  for (int64_t i = 0; i < slices(of); ++i) {
    const Features part = slice(of, i);
    const int64_t depth = part.end - part.begin;
    int64_t row_stride;
    const T* q = left(pair.row, part, scratch, &row_stride);
    simd<T>().pack_columns(k_.plain(col, tile.cols), part.begin, depth, scratch.panels.data());
    simd<T>().product(q, row_stride, 1, tile.rows, scratch.panels.data(), depth, tile.cols,
                      q_.factors(row), k_.factors(col), tile.s, tile.stride, accumulate || i > 0,
                      true);
  }
}

// Where k is q, s_ij and s_ji are the same bits: sums and factors are formed in one order for both.
// A gradient that takes one for the other would not notice else than where p nearly cancels.
template <typename T>
Tile<T> Tiles<T>::similarities(const Pair& pair, int64_t worker, T* to) {
  const Tile<T> tile = this->tile(pair, to != nullptr ? to : scratch_[worker].tile.data());
  multiply(tile, pair, worker, all(), false);
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* end = tile.s + i * tile.stride + tile.cols;
    std::fill_n(end, kPadding, -std::numeric_limits<T>::infinity());
  }
  if (x_.limit != nullptr) leave_out(tile, pair, worker);
  return tile;
}

template <typename T>
void Tiles<T>::leave_out(const Tile<T>& tile, const Pair& pair, int64_t worker) {
  Tile<T> judge = tile;
  if (guide_ != nullptr) {
    judge = guide_->similarities(pair, worker, scratch_[worker].judge.data());
  }
  simd<T>().leave_out(tile, match(pair), judge, limit_.data() + row_begin(pair.row));
}

template <typename T>
void Tiles<T>::times_k(const Tile<T>& tile, const Pair& pair, int64_t worker, T* out, Features of) {
  if constexpr (sizeof(T) == 4) {
    if (pairs_ != nullptr) return pair_times_k(tile, pair, scratch_[worker], out, of);
  }
  T* panels = scratch_[worker].panels.data();
  for (int64_t i = 0; i < slices(of); ++i) {
    const Features part = slice(of, i);
    const int64_t width = part.end - part.begin;
    simd<T>().pack_rows(k_.block(col_begin(pair.col), tile.cols), part.begin, width, panels);
    simd<T>().product(tile.s, tile.stride, 1, tile.rows, panels, tile.cols, width, nullptr, nullptr,
                      out + part.begin, x_.d, true, false);
  }
}

template <typename T>
void Tiles<T>::times_q(const Tile<T>& tile, const Pair& pair, int64_t worker, T* out, Features of) {
  if constexpr (sizeof(T) == 4) {
    if (pairs_ != nullptr) return pair_times_q(tile, pair, scratch_[worker], out, of);
  }
  T* panels = scratch_[worker].panels.data();
  for (int64_t i = 0; i < slices(of); ++i) {
    const Features part = slice(of, i);
    const int64_t width = part.end - part.begin;
    simd<T>().pack_rows(q_.block(row_begin(pair.row), tile.rows), part.begin, width, panels);
    simd<T>().product(tile.s, 1, tile.stride, tile.cols, panels, tile.rows, width, nullptr, nullptr,
                      out + part.begin, x_.d, true, false);
  }
}

template class Tiles<float>;
template class Tiles<double>;

}  // namespace fastcl::cpu
