// The contrast at nested widths on the CPU (Kusupati et al. 2022, equation 1): with the features in
// parts, which end where a width does,
//     products_w = products_{w-1} + q_part k_part^T,   c_w = products_w / (|q_w| |k_w|),
//     G_w = G_{w+1} + dc_w / (|q_w| |k_w|),            dq_part = G_w k_part,  dk_part = G_w^T
//     q_part
// all widths together take the three products of the widest one, and an exponential twice per width
// and logit. What the lengths add is a multiple of each part of a row, taken afterwards. The tiles
// of all widths are kept for a chunk of rows; where that would be few, they are formed again.
#include "cpu/nested_contrast.h"

#include <algorithm>
#include <vector>

namespace fastcl::cpu {
namespace {

// Rows of a chunk below which forming the tiles again costs less than packing k for each chunk.
constexpr int64_t kFew = 48;
// The tiles of a chunk may take this much more than those of one width: packing k once more costs
// more than a tile that comes from beyond L2.
constexpr int64_t kMore = 2;

template <typename T>
class Nested {
 public:
  explicit Nested(const NestedContrast<T>& x)
      : x_(x),
        problem_(problem(x)),
        tiles_(problem_, schedule(x), odd(x.widths)),
        q_(x.dtype, problem_.q, &Width<T>::q, x.n, x.d),
        k_(x.dtype, problem_.k, &Width<T>::k, x.n, x.d) {
    const Schedule& s = tiles_.schedule;
    const int64_t count = x.widths.size();
    rows_ = chunked() ? s.group * s.rows_per_block : x.n;
    int64_t begin = 0;
    for (int64_t w = 0; w < count; begin = x.widths[w++]) {
      widths_.emplace_back(Features{begin, x.widths[w]}, x.weights[w], x.n, rows_,
                           chunked() ? s.col_blocks : s.slots);
      const Features part = widths_.back().part;
      for (int64_t i = 0; i < tiles_.slices(part); ++i) {
        slices_.push_back({w, tiles_.slice(part, i)});
      }
    }
    if (chunked()) kept_ = Buffer<T>(s.group * s.col_blocks * count * tiles_.tile_size());
    for (int64_t i = 0; i < tiles_.workers; ++i) {
      scratch_.emplace_back((chunked() ? 1 : 1 + count) * tiles_.tile_size());
    }
  }

  void operator()() {
    if (x_.dq != nullptr) std::fill_n(x_.dq, x_.n * x_.d, T(0));
    if (x_.dk != nullptr) std::fill_n(x_.dk, x_.n * x_.d, T(0));
    q_.measure(widths_, tiles_.workers);
    k_.measure(widths_, tiles_.workers);
    chunked() ? in_chunks() : in_passes();
    *x_.loss = 0;
    if (x_.slope != nullptr) *x_.slope = 0;
    for (const Width<T>& w : widths_) {
      const auto mean = [&](const Buffer<double>& of) {
        return w.weight / x_.n * sum_of(0, x_.n, [&](int64_t i) { return of[i]; });
      };
      *x_.loss += mean(w.losses);
      if (x_.slope != nullptr) *x_.slope += x_.scale * mean(w.q.slope);
    }
    const double factor = x_.scale / x_.n;
    if (x_.dq != nullptr) q_.project(widths_, factor, tiles_.workers, x_.dq);
    if (x_.dk != nullptr) k_.project(widths_, factor, tiles_.workers, x_.dk);
  }

 private:
  static bool odd(const std::vector<int64_t>& widths) {
    return std::any_of(widths.begin(), widths.end(), [](int64_t w) { return w % 2 != 0; });
  }
  static Divided<T> problem(const NestedContrast<T>& x) {
    Divided<T> p{};
    p.dtype = x.dtype;
    p.q.parts = {{x.q, x.n}};
    p.k.parts = {{x.k, x.n}};
    p.n = p.m = x.n;
    p.d = x.d;
    p.scale = x.scale;
    return p;
  }
  static Schedule schedule(const NestedContrast<T>& x) {
    const int64_t n = x.n, count = x.widths.size();
    if (!x.has_gradient()) {
      return Schedule(Order::kRows, n, n, x.d, 4 * count * sizeof(double));
    }
    const int64_t row_bytes = std::max<int64_t>(1, n * count * sizeof(T) / kMore);
    const Schedule chunks(Order::kChunks, n, n, x.d, row_bytes);
    const bool few = chunks.group * chunks.rows_per_block < std::min(n, kFew);
    return few ? Schedule(Order::kSquare, n, n, x.d, row_bytes) : chunks;
  }

  bool chunked() const { return tiles_.schedule.order == Order::kChunks; }
  int64_t count() const { return widths_.size(); }
  int64_t columns() const { return tiles_.schedule.col_blocks; }
  // Column i + self of the tile is row i.
  int64_t self(const Pair& pair) const {
    return tiles_.row_begin(pair.row) - tiles_.col_begin(pair.col);
  }
  Pair pair(int64_t block, int64_t col) const { return {first_ + block, col, col}; }
  T* at(int64_t block, int64_t col) const {
    return kept_.data() + (block * columns() + col) * count() * tiles_.tile_size();
  }

  void in_chunks();
  void in_passes();
  void cosines(const Pair& pair, int64_t worker, T* to, bool add);
  void weigh(int64_t begin, int64_t size);
  void gradient(const Pair& pair, T* cosines);
  void add_slopes(int64_t begin, int64_t size);
  void down();
  void across();

  const NestedContrast<T>& x_;
  const Divided<T> problem_;
  Tiles<T> tiles_;
  const NestedSide<T> q_, k_;
  std::vector<Width<T>> widths_;
  struct Slice {
    int64_t width;
    Features features;
  };
  std::vector<Slice> slices_;
  Buffer<T> kept_;                  // [group, blocks of columns, widths] tiles
  std::vector<Buffer<T>> scratch_;  // products, and where nothing is kept the tiles of all widths
  int64_t rows_;                    // of a chunk, or all
  int64_t first_ = 0, group_ = 0;   // blocks of this chunk
};

template <typename T>
void Nested<T>::in_chunks() {
  const Schedule& schedule = tiles_.schedule;
  for (first_ = 0; first_ < schedule.row_blocks; first_ += schedule.group) {
    group_ = std::min(schedule.group, schedule.row_blocks - first_);
    const int64_t begin = tiles_.row_begin(first_);
    for (Width<T>& w : widths_) w.sums.clear();
    run_items(group_ * columns(), tiles_.workers, [&](int64_t item, int64_t worker) {
      const int64_t block = item % group_, col = item / group_;
      cosines(pair(block, col), worker, at(block, col), true);
    });
    const int64_t size = std::min(group_ * schedule.rows_per_block, x_.n - begin);
    weigh(begin, size);
    down();
    if (x_.dq != nullptr) across();
    add_slopes(begin, size);
  }
}

template <typename T>
void Nested<T>::add_slopes(int64_t begin, int64_t size) {
  const int64_t slots = chunked() ? columns() : tiles_.schedule.slots;
  for (Width<T>& w : widths_) {
    for (int64_t slot = 0; slot < slots; ++slot) {
      double* const from = w.in_slots.data() + slot * rows_;
      for (int64_t i = 0; i < size; ++i) w.q.slope[begin + i] += from[i];
      std::fill_n(from, rows_, 0.0);
    }
  }
}

template <typename T>
void Nested<T>::in_passes() {
  run(tiles_.schedule, tiles_.workers, [&](const Pair& pair, int64_t worker) {
    cosines(pair, worker, scratch_[worker].data() + tiles_.tile_size(), true);
  });
  weigh(0, x_.n);
  if (!x_.has_gradient()) return;
  run(tiles_.schedule, tiles_.workers, [&](const Pair& pair, int64_t worker) {
    T* const tiles = scratch_[worker].data() + tiles_.tile_size();
    cosines(pair, worker, tiles, false);
    gradient(pair, tiles);
    for (int64_t w = 0; w < count(); ++w) {
      const Tile<T> tile = tiles_.tile(pair, tiles + w * tiles_.tile_size());
      const Features part = widths_[w].part;
      const int64_t row = tiles_.row_begin(pair.row), col = tiles_.col_begin(pair.col);
      if (x_.dq != nullptr) tiles_.times_k(tile, pair, worker, x_.dq + row * x_.d, part);
      if (x_.dk != nullptr) tiles_.times_q(tile, pair, worker, x_.dk + col * x_.d, part);
    }
  });
  add_slopes(0, x_.n);
}

// The tiles of all widths to `to`; add: and what they add to the sums of their rows.
template <typename T>
void Nested<T>::cosines(const Pair& pair, int64_t worker, T* to, bool add) {
  const int64_t row = tiles_.row_begin(pair.row), col = tiles_.col_begin(pair.col);
  const Tile<T> products = tiles_.tile(pair, scratch_[worker].data());
  for (int64_t w = 0; w < count(); ++w) {
    const Width<T>& x = widths_[w];
    tiles_.multiply(products, pair, worker, x.part, w > 0);
    const int64_t within = row - tiles_.row_begin(first_);
    simd<T>().nested_fold(products, x.q.factor.data() + row, x.k.factor.data() + col, tiles_.scale,
                          self(pair), add ? x.sums.slot(pair.slot).at(within) : Sums<T>{},
                          to + w * tiles_.tile_size());
  }
}

// What the sums of some rows say.
template <typename T>
void Nested<T>::weigh(int64_t begin, int64_t size) {
  for (Width<T>& w : widths_) {
    w.sums.combine(true, x_.scale);
    const Sums<T> sums = w.sums.slot(0);
    for (int64_t l = 0, i = begin; l < size; ++l, ++i) {
      const double cosine = sums.logit[l], own = x_.scale * cosine;
      const double shift = sums.most[l] == -kInfinity ? 0 : x_.scale * sums.most[l];
      const Statistics found = finish(sums.negative[l], 0, 0, 0, shift, true, &own);
      const double missing = std::expm1(-found.loss);  // p - 1 of the positive
      w.losses[i] = found.loss;
      w.q.slope[i] += missing * cosine;
      w.k.slope[i] += missing * cosine;
      const double factor = w.weight * x_.scale / x_.n * w.q.inverse[i];
      w.row[i] = static_cast<T>(factor);
      w.own[i] = static_cast<T>(factor * missing);
      const Pivot<T> pivot(found.lse, x_.scale);
      w.pivot[i] = pivot.s;
      w.rest[i] = pivot.rest;
    }
  }
}

// The gradients of a tile of every width over it, from the widest on.
template <typename T>
void Nested<T>::gradient(const Pair& pair, T* cosines) {
  const int64_t row = tiles_.row_begin(pair.row), col = tiles_.col_begin(pair.col);
  const T* wider = nullptr;
  for (int64_t w = count() - 1; w >= 0; --w) {
    const Width<T>& x = widths_[w];
    T* const here = cosines + w * tiles_.tile_size();
    simd<T>().nested_gradient(
        tiles_.tile(pair, here), wider,
        {x.row.data() + row, x.k.inverse.data() + col, x.own.data() + row, x.pivot.data() + row,
         x.rest.data() + row,
         x.in_slots.data() + pair.slot * rows_ + row - tiles_.row_begin(first_),
         x.k.slope.data() + col},
        tiles_.scale, self(pair));
    wider = here;
  }
}

// The gradient of every tile, and of the columns.
template <typename T>
void Nested<T>::down() {
  run_items(columns(), tiles_.workers, [&](int64_t col, int64_t worker) {
    for (int64_t block = 0; block < group_; ++block) {
      const Pair here = pair(block, col);
      gradient(here, at(block, col));
      for (int64_t w = 0; w < count() && x_.dk != nullptr; ++w) {
        const Tile<T> tile = tiles_.tile(here, at(block, col) + w * tiles_.tile_size());
        tiles_.times_q(tile, here, worker, x_.dk + tiles_.col_begin(col) * x_.d, widths_[w].part);
      }
    }
  });
}

// The gradient of the rows.
template <typename T>
void Nested<T>::across() {
  const int64_t slices = slices_.size();
  run_items(group_ * slices, tiles_.workers, [&](int64_t item, int64_t worker) {
    const int64_t block = item / slices;
    const Slice& slice = slices_[item % slices];
    for (int64_t col = 0; col < columns(); ++col) {
      const Pair here = pair(block, col);
      T* const at = this->at(block, col) + slice.width * tiles_.tile_size();
      tiles_.times_k(tiles_.tile(here, at), here, worker, x_.dq + tiles_.row_begin(here.row) * x_.d,
                     slice.features);
    }
  });
}

}  // namespace

template <typename T>
void nested_contrast_mean(const NestedContrast<T>& x) {
  (Nested<T>(x))();
}

template void nested_contrast_mean(const NestedContrast<float>&);
template void nested_contrast_mean(const NestedContrast<double>&);

}  // namespace fastcl::cpu
