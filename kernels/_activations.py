"""The activations in Triton, and their derivatives, inside the kernels that fuse them; and which comes first, the
normalisation or the activation."""

import triton
import triton.language as tl

from inpaint_fast._words import ACTIVATIONS, ORDERS

NONE = ACTIVATIONS.index("none")
RELU, LEAKY_RELU, ELU, SIGMOID, TANH = (tl.constexpr(ACTIVATIONS.index(name)) for name in ACTIVATIONS[1:])
NORM_ACT, ACT_NORM = (tl.constexpr(ORDERS.index(name)) for name in ("norm_act", "act_norm"))


@triton.jit
def _expm1(x):
    """e^x - 1 for x <= 0 or NaN."""
    e = tl.exp(x)
    if x.dtype == tl.float64:  # Kahan's way: the rounding of e is in the numerator and in the denominator
        plain = (e == 1.0) | (e == 0.0)
        y = tl.where(plain, tl.where(e == 1.0, x, -1.0), (e - 1.0) * x / tl.log(tl.where(plain, 2.0, e)))
    else:
        series = x * (1.0 / 40320) + 1.0 / 5040
        series = series * x + 1.0 / 720
        series = series * x + 1.0 / 120
        series = series * x + 1.0 / 24
        series = series * x + 1.0 / 6
        series = series * x + 0.5
        y = tl.where(x > -0.5, series * (x * x) + x, e - 1.0)
    return y


@triton.jit
def activated(x, slope, ACTIVATION: tl.constexpr):
    """act(x); slope, of x's type, is leaky_relu's negative slope and elu's alpha. NaN stays NaN."""
    y = x
    if ACTIVATION == RELU:
        y = tl.where(x < 0, 0.0, x)
    elif ACTIVATION == LEAKY_RELU:
        y = tl.where(x > 0, x, x * slope)
    elif ACTIVATION == ELU:
        y = tl.where(x > 0, x, slope * _expm1(tl.where(x > 0, 0.0, x)))
    elif ACTIVATION == SIGMOID:
        e = tl.exp(tl.where(x < 0, x, -x))  # never overflows
        y = tl.where(x < 0, e, 1.0) / (1.0 + e)
    elif ACTIVATION == TANH:
        e = _expm1(2.0 * tl.where(x < 0, x, -x))
        y = e / (2.0 + e)  # negative
        y = tl.where(x < 0, y, -y)
    return y


@triton.jit
def times_activation_slope(g, x, slope, ACTIVATION: tl.constexpr):
    """g * d act(x) / dx, from x alone; at 0 what PyTorch takes it for. relu's zero is one whatever g is."""
    y = g
    if ACTIVATION == RELU:
        y = tl.where(x <= 0, 0.0, g)
    elif ACTIVATION == LEAKY_RELU:
        y = tl.where(x > 0, g, g * slope)
    elif ACTIVATION == ELU:
        y = tl.where(x > 0, g, g * slope * tl.exp(tl.where(x > 0, 0.0, x)))
    elif ACTIVATION == SIGMOID:
        e = tl.exp(tl.where(x < 0, x, -x))
        y = g * (e / ((1.0 + e) * (1.0 + e)))
    elif ACTIVATION == TANH:
        e = tl.exp(2.0 * tl.where(x < 0, x, -x))
        y = g * (4.0 * e / ((1.0 + e) * (1.0 + e)))
    return y
