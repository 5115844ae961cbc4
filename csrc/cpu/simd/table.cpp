// The passes of one instruction set.
#include "cpu/simd/passes.h"

namespace fastcl::FASTCL_SIMD {

template <typename T>
constexpr cpu::Simd<T> kPasses = {
    fold<T>,         fold_matching<T>,  fold_online<T>,        above<T>,
    leave_out<T>,    gradient<T>,       gradient_matching<T>,  gradient_online<T>,
    logistic<T>,     nested_fold<T>,    nested_gradient<T>,    best_columns<T>,
    add_rows<T>,     product<T>,        copy_rows<T>,          pack_rows<T>,
    pack_columns<T>, pack_pair_columns, pack_pair_rows,        narrow_rows,
    narrow_columns,  unit_rows<T>,      unit_rows_gradient<T>, row_lengths<T>,
    project<T>};

extern const cpu::Simd<float> float_passes;
extern const cpu::Simd<double> double_passes;

const cpu::Simd<float> float_passes = kPasses<float>;
const cpu::Simd<double> double_passes = kPasses<double>;

}  // namespace fastcl::FASTCL_SIMD
