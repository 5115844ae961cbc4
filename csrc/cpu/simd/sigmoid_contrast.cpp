// The logistic pass over a tile: with t_ij = s_ij scale + bias and y_ij = 1 at a positive, else -1,
//     loss += log(1 + exp(-y t)),   G_ij = -y / (1 + exp(y t)),
// in one read and one write, one exponential of -|t| for both. Positives may be left out.
#include "cpu/simd/logistic.h"
#include "cpu/simd/passes.h"

namespace fastcl::FASTCL_SIMD {

template <typename T>
void logistic(Tile<T> tile, Match<T> match, Scale<T> scale, T bias, T factor, bool positives_in,
              double* sums) {
  using V = Vector<T>;
  constexpr T log_of_two = T(0.6931471805599453);
  const Code<T> out = positives_in ? 0 : -1;
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* at = tile.s + i * tile.stride;
    V losses{}, gradients{}, products{};
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const Lane<T> lane(match, i, j);
      const Integer<T> inside =
          (iota<T>() + static_cast<Code<T>>(j) < static_cast<Code<T>>(tile.cols)) &
          ~(lane.same & out);
      const V s = where<T>(inside, load<V>(at + j));
      const V t = (s * scale.high + bias) + s * scale.low;  // in units of log 2
      const V x = lane.same ? -t : t;
      const V e = exp2<T>(x > 0 ? -x : x);
      const V zero = s * T(0);  // NaN where s is not finite: no finite loss comes of it
      const V loss = at_least(x, splat<T>(0)) * log_of_two + log_of_one_plus<T>(e) + zero;
      const V size = (x > 0 ? splat<T>(1) : e) / (e + T(1));
      const V g = where<T>(inside, (lane.same ? -size : size) + zero);
      losses += where<T>(inside, loss);
      gradients += g;
      products += g * s;
      store(at + j, g * factor);
    }
    sums[0] += sum<T>(losses);
    sums[1] += sum<T>(products);
    sums[2] += sum<T>(gradients);
  }
}

template void logistic(Tile<float>, Match<float>, Scale<float>, float, float, bool, double*);
template void logistic(Tile<double>, Match<double>, Scale<double>, double, double, bool, double*);

}  // namespace fastcl::FASTCL_SIMD
