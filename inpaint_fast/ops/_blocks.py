"""What the operators of convolution, norm and activation share: arguments, epilogue, kept weights, gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from inpaint_fast._words import DTYPES
from inpaint_fast.ops._activations import activate
from inpaint_fast.ops._dispatch import Operator

# ---- arguments ----


def check_tensors(input: Tensor, weight: Tensor, **vectors: Tensor | None) -> None:
    """Raises what is wrong with the tensors whatever the convolution, by name."""
    given = {name: tensor for name, tensor in vectors.items() if tensor is not None}
    for name, tensor in {"input": input, "weight": weight, **given}.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: a torch.Tensor is expected, got {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{name}: a dense tensor is expected, got layout {tensor.layout}")
        if tensor.device != input.device:
            raise TypeError(f"{name}: it is on {tensor.device} and input is on {input.device}; one device is expected")
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name}: float32, float64, float16 or bfloat16 is expected, got {tensor.dtype}")
        if tensor.dtype != input.dtype and not torch.is_autocast_enabled(input.device.type):
            raise TypeError(f"{name}: the dtype of input, {input.dtype}, is expected, got {tensor.dtype}")
    if input.dim() != 4:
        raise ValueError(f"input: (N, C, H, W) is expected, got shape {tuple(input.shape)}")


def check_vectors(channels: int, **vectors: Tensor | None) -> None:
    """Raises the ValueError that names the one that has not a number for each output channel."""
    for name, tensor in vectors.items():
        if tensor is not None and tensor.shape != (channels,):
            raise ValueError(f"{name}: ({channels},), one number for each output channel, is expected, "
                             f"got {tuple(tensor.shape)}")  # fmt: skip


def choose(operator: Operator, input: Tensor, backend: str | None) -> str:
    """The backend that runs on these tensors."""
    # The transforms of torch.func and forward-mode derivatives cannot look into a registered operator.
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return operator.only_reference(backend, "under torch.func and forward-mode differentiation")
    return operator.choose(input.device, backend)


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether a gradient of one of them will be asked for."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def computed(input: Tensor, *others: Tensor | None) -> list[Tensor | None]:
    """The tensors as the CPU computes with them: in float32, or as they are where the input is float64."""
    tensors = [input, *others]
    if input.dtype == torch.float64:
        return tensors
    return [t if t is None or t.dtype == torch.float32 else t.float() for t in tensors]


def autocast(input: Tensor, *others: Tensor | None) -> list[Tensor | None]:
    """The tensors in autocast's dtype where that is enabled, as PyTorch casts a convolution's; float64 stays."""
    tensors, device = [input, *others], input.device.type
    if not torch.is_autocast_enabled(device) or input.dtype == torch.float64:
        return tensors
    return [t if t is None else t.to(torch.get_autocast_dtype(device)) for t in tensors]


def allows_tf32(tensor: Tensor) -> bool:
    """Whether PyTorch's own convolution would compute with this tensor's numbers as TF32."""
    # Of all the flags for this, the one that can be read whichever of them were set.
    return tensor.is_cuda and tensor.dtype == torch.float32 and torch.backends.cudnn.conv.fp32_precision == "tf32"


def as_tf32(tensor: Tensor) -> Tensor:
    """float32 numbers rounded to the 11 bits of TF32, half away from zero: tensor cores cut the others off."""
    bits = (tensor.view(torch.int32) + 0x1000) & -0x2000
    return torch.where(tensor.isfinite(), bits.view(torch.float32), tensor)


# ---- norm and activation ----


def affine(y: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """scale * y + shift, a number for each channel, in y's dtype."""
    if scale is not None:
        y = (y * scale[:, None, None]).to(y.dtype)  # which autocast may have made narrower than the scale's
    return y if shift is None else (y + shift[:, None, None]).to(y.dtype)


def epilogue(
    y: Tensor, scale: Tensor | None, shift: Tensor | None, activation: str, slope: float, order: str
) -> Tensor:
    """Norm and activation in plain PyTorch."""
    if order == "norm_act":
        return activate(affine(y, scale, shift), activation, slope)
    return affine(activate(y, activation, slope), scale, shift)


def activation_gradient(grad: Tensor, output: Tensor, activation: str, slope: float) -> Tensor:
    """grad times the activation's derivative, which its result tells where slope >= 0."""
    aten = torch.ops.aten
    if activation == "relu":
        return aten.threshold_backward(grad, output, 0)
    if activation == "leaky_relu":
        return aten.leaky_relu_backward(grad, output, slope, True)
    if activation == "elu":
        return aten.elu_backward(grad, slope, 1, 1, True, output)
    if activation == "sigmoid":
        return aten.sigmoid_backward(grad, output)
    return aten.tanh_backward(grad, output) if activation == "tanh" else grad


# ---- Winograd's tiles ----

TASK_TILES = 12  # as csrc/conv_block/cpu/tilings.h


def tiles_and_products(
    images: int, sides: Sequence[int], dilation: Sequence[int], numbers: Callable[[int], int]
) -> tuple[int, int]:
    """How many tiles cover pictures of these sides, and how many products they take for a pair of channels.

    A tile has 4x4 pixels, those at the edges fewer where that is worth a band of their own: as `tilings_of` in
    csrc/conv_block/cpu/tilings.h decides. `numbers(pixels)`: of a tile's side in the Winograd domain.
    """
    along = [side // (4 * d) * d + min(side % (4 * d), d) for side, d in zip(sides, dilation, strict=True)]
    if torch.compiler.is_compiling():  # sizes may be symbols, and each question about one compiles for its answer
        tiles = images * along[0] * along[1]
        return tiles, tiles * numbers(4) ** 2
    ways = []
    for side, d, tiles in zip(sides, dilation, along, strict=True):
        whole, rest = side // (4 * d) * d, side % (4 * d)
        pixels, more = rest // d, rest % d  # of the last tiles; the first ones of the rest have 1 pixel more
        cut = [(whole, 4), (more, pixels + 1), (d - more if pixels else 0, pixels)]
        ways.append(([(tiles, 4)], [band for band in cut if band[0]]))
    best = None
    for rows, columns in product(*ways):
        tiles = [(images * r * c, numbers(p) * numbers(q)) for (r, p), (c, q) in product(rows, columns)]
        cost = sum(max(count, TASK_TILES) * each for count, each in tiles)
        if best is None or cost < best[0]:
            best = (cost, sum(count for count, _ in tiles), sum(count * each for count, each in tiles))
    return best[1:]


# ---- transformed weights of inference ----

# weight -> (whose transform it is and of which version, the transform, an alias of the weight: it holds the memory, so
# that another tensor assigned to `weight.data` cannot come to lie at the same address)
_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def transformed(
    operator: Operator, backend: str, parameter: Tensor, weight: Tensor, tf32: bool = False
) -> Tensor | None:
    """`weight` transformed, as it is kept of `parameter`; made anew when that has changed, or for another backend.

    None where nothing can be kept: the operator itself transforms `weight`.
    """
    if torch.compiler.is_compiling() or parameter.is_inference():  # which have no version
        return None
    owner = (operator.stem, backend, weight.dtype, tf32)
    state = (*owner, parameter._version, parameter.data_ptr(), parameter.stride())
    kept = _kept.get(parameter)
    if kept is None or kept[0] != state:
        found = operator.call(backend, f"{operator.stem}_weights", as_tf32(weight) if tf32 else weight)
        kept = (state, found, parameter.detach())
        _kept[parameter] = kept
    return kept[1]


def prepare(operator: Operator, weight: Tensor) -> None:
    """Transform a weight for inference now, not at its first use."""
    backend = operator.choose(weight.device, None)
    if backend == "cpp" and weight.dtype != torch.float64:
        transformed(operator, backend, weight, weight.detach().float())
    elif backend != "reference" and weight.dtype != torch.float64:
        transformed(operator, backend, weight, weight.detach(), allows_tf32(weight))


def forget(weight: Tensor) -> None:
    """Drop what is kept of a transformed weight."""
    _kept.pop(weight, None)


# ---- the operators ----


def gradients_of(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], grad: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of function(*tensors), themselves differentiable when grad mode is on."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        if not again:
            tensors = tuple(t if t is None else t.detach().requires_grad_(w) for t, w in zip(tensors, wanted))  # noqa: B905
        y = function(*tensors)
        sources: list[Any] = [t for t, w in zip(tensors, wanted, strict=True) if w]
        found = iter(torch.autograd.grad(y, sources, grad, create_graph=again))
    return [next(found) if w else None for w in wanted]
