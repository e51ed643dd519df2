"""Exponential and logarithm that the compiler can run on several numbers at once, the same bits on every machine.

The library functions are calls, and a loop with calls in it is not vectorised. These are plain arithmetic (argument
reduction to powers of two, then a polynomial; error at most 1 unit in the last place) and need no library.
"""

from numba import njit, types
from numba.extending import intrinsic

_inline = njit(error_model="numpy", forceinline=True)
_SHIFT = 6755399441055744.0  # 1.5 * 2^52: adding it rounds to a whole number, which then stands in the low bits
_ONE_OVER_LN2 = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD


@intrinsic
def _bits_of(typing_context, x):
    """The 64 bits of a float as an integer."""

    def generate(context, builder, signature, arguments):
        """LLVM instruction of one call (numba's interface for intrinsics)."""
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


@intrinsic
def _float_of(typing_context, bits):
    """The float with these 64 bits."""

    def generate(context, builder, signature, arguments):
        """LLVM instruction of one call (numba's interface for intrinsics)."""
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


@intrinsic
def _fma(typing_context, a, b, c):
    """a * b + c, rounded once."""

    def generate(context, builder, signature, arguments):
        """LLVM instruction of one call (numba's interface for intrinsics)."""
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


@_inline
def exp(x):
    """e to the power x; below -708 it stays at the smallest normal number, above 709 at the largest."""
    x = x if x > -708.0 else -708.0
    x = x if x < 709.0 else 709.0
    shifted = _fma(x, _ONE_OVER_LN2, _SHIFT)
    n = shifted - _SHIFT
    r = _fma(n, -_LN2_LOW, _fma(n, -_LN2_HIGH, x))
    r2 = r * r
    r4 = r2 * r2
    # 1/2! + r/3! + ... + r^11/13!, in pairs so that they are computed side by side
    a0 = _fma(r, 1.6666666666666667e-01, 0.5)
    a1 = _fma(r, 8.3333333333333333e-03, 4.1666666666666667e-02)
    a2 = _fma(r, 1.984126984126984e-04, 1.3888888888888889e-03)
    a3 = _fma(r, 2.7557319223985893e-06, 2.48015873015873e-05)
    a4 = _fma(r, 2.505210838544172e-08, 2.755731922398589e-07)
    a5 = _fma(r, 1.6059043836821613e-10, 2.08767569878681e-09)
    p = _fma(_fma(_fma(a5, r2, a4), r4, _fma(a3, r2, a2)), r4, _fma(a1, r2, a0))
    return (_fma(p, r2, r) + 1.0) * _float_of((_bits_of(shifted) + 1023) << 52)


@_inline
def log(x):
    """Natural logarithm of a positive, normal number."""
    bits = _bits_of(x)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    m = _float_of(bits - (exponent << 52))  # between sqrt(1/2) and sqrt(2)
    n = _float_of(exponent + _bits_of(_SHIFT)) - _SHIFT
    s = (m - 1.0) / (m + 1.0)
    w = s * s
    w2 = w * w
    w4 = w2 * w2
    # log m = 2 (s + s^3/3 + s^5/5 + ...)
    a0 = _fma(w, 2.0 / 5.0, 2.0 / 3.0)
    a1 = _fma(w, 2.0 / 9.0, 2.0 / 7.0)
    a2 = _fma(w, 2.0 / 13.0, 2.0 / 11.0)
    a3 = _fma(w, 2.0 / 17.0, 2.0 / 15.0)
    a4 = _fma(w, 2.0 / 21.0, 2.0 / 19.0)
    p = _fma(_fma(a4, w4, _fma(a3, w2, a2)), w4, _fma(a1, w2, a0))
    return _fma(n, _LN2_HIGH, _fma(n, _LN2_LOW, _fma(s * w, p, 2.0 * s)))
