// Tiles of bfloat16 rows on processors that multiply them. Rows go in as they are; what divides
// them by their length is a factor of the sums (of similarities) or goes into the gradient before
// its one rounding, positives already subtracted.
#include "cpu/contrast.h"

namespace fastcl::cpu {
template <typename T>
void Tiles<T>::pair_multiply(const Tile<float>& tile, const Pair& pair, Scratch& scratch,
                             Features of, bool accumulate) {
  const int64_t row = row_begin(pair.row), col = col_begin(pair.col);
  const Block<T> q = q_.plain(row, tile.rows), k = k_.plain(col, tile.cols);
  for (int64_t i = 0; i < slices(of); ++i) {
    const Features part = slice(of, i);
    const int64_t from = part.begin / 2, pairs = part.end / 2 - from;
    pack_squares(q.rows, tile.rows, from, pairs, scratch.a.data());
    simd<T>().pack_pair_columns(k.rows, tile.cols, from, pairs, scratch.b.data());
    pairs_({scratch.a.data(), tile.rows, scratch.b.data(), pairs, tile.cols,
            reinterpret_cast<const float*>(q_.factors(row)),
            reinterpret_cast<const float*>(k_.factors(col)), tile.s, tile.stride,
            accumulate || i > 0});
  }
}

template <typename T>
void Tiles<T>::pair_times_k(const Tile<float>& tile, const Pair& pair, Scratch& scratch, float* out,
                            Features of) {
  const int64_t col = col_begin(pair.col), depth = (tile.cols + 1) / 2;
  const Block<T> k = k_.plain(col, tile.cols);
  simd<T>().narrow_rows(tile, reinterpret_cast<const float*>(k_.factors(col)), scratch.a.data());
  for (int64_t i = 0; i < slices(of); ++i) {
    const Features part = slice(of, i);
    const int64_t width = part.end - part.begin;
    simd<T>().pack_pair_rows(k.rows, tile.cols, part.begin, width, scratch.b.data());
    pairs_({scratch.a.data(), tile.rows, scratch.b.data(), depth, width, nullptr, nullptr,
            out + part.begin, x_.d, true});
  }
}

template <typename T>
void Tiles<T>::pair_times_q(const Tile<float>& tile, const Pair& pair, Scratch& scratch, float* out,
                            Features of) {
  const int64_t row = row_begin(pair.row), depth = (tile.rows + 1) / 2;
  const Block<T> q = q_.plain(row, tile.rows);
  simd<T>().narrow_columns(tile, reinterpret_cast<const float*>(q_.factors(row)),
                           scratch.mixed.data(), scratch.a.data());
  for (int64_t i = 0; i < slices(of); ++i) {
    const Features part = slice(of, i);
    const int64_t width = part.end - part.begin;
    simd<T>().pack_pair_rows(q.rows, tile.rows, part.begin, width, scratch.b.data());
    pairs_({scratch.a.data(), tile.cols, scratch.b.data(), depth, width, nullptr, nullptr,
            out + part.begin, x_.d, true});
  }
}

template void Tiles<float>::pair_multiply(const Tile<float>&, const Pair&, Scratch&, Features,
                                          bool);
template void Tiles<float>::pair_times_k(const Tile<float>&, const Pair&, Scratch&, float*,
                                         Features);
template void Tiles<float>::pair_times_q(const Tile<float>&, const Pair&, Scratch&, float*,
                                         Features);

}  // namespace fastcl::cpu
