"""Batch normalisation and activation in Triton: Ioffe and Szegedy, Batch Normalization (2015).

    u = input, or act(input) where the activation comes first
    z = scale * (u - shift) + offset,  scale = weight / std,  shift = the mean as the elements' type has it
    y = act(z), or z where the activation came first

and with g = d loss / d z

    d loss / d u = scale * (g - mean(g) - (u - mean) / var * mean(g * (u - mean)))    the last two in training alone

In training three launches a direction, for nothing waits for a whole grid inside one: every part of the tensor leaves
two numbers a channel, one kernel puts these together, one goes over the elements. In eval mode one launch, and two more
for the gradients of weight and bias. Elements are computed in float32 (float64 for float64) and summed in float64, the
variance from each part's own mean and the squares about it (Chan, Golub, LeVeque, Updating formulae and a pairwise
algorithm for computing sample variances, 1979). Deterministic: the parts follow from the shape alone and are added in a
fixed order. Nothing waits for the device.

The functions take what the schemas of the registered operators say.
"""

from inpaint_fast.kernels.norm_act.backward import norm_act_backward
from inpaint_fast.kernels.norm_act.forward import norm_act

__all__ = ["norm_act", "norm_act_backward"]
