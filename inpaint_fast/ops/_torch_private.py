"""PyTorch's private names, all that this package uses, each with the question that it answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_exporting
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

_C = torch._C
_KEYS = _C.DispatchKeySet(_C.DispatchKey.BackendSelect)
# What a thread looks at before any tensor, where nobody looks at operators from outside: ordinarily, and in inference
# mode. FakeTensorMode, functorch, tracing and every other mode add keys of theirs.
_ORDINARY = (_KEYS.add(_C.DispatchKey.ADInplaceOrView).raw_repr(), _KEYS.raw_repr())


def is_ordinary(*tensors: Tensor | None) -> bool:
    """No mode or transform is on, and the tensors are real ones: what is computed now may be kept."""
    if _C._dispatch_tls_local_include_set().raw_repr() not in _ORDINARY or is_transformed():
        return False
    if _C._len_torch_function_stack():
        return False
    return all(t is None or type(t) is Tensor or type(t) is torch.nn.Parameter for t in tensors)


def is_transformed() -> bool:
    """Under the transforms of `torch.func` or forward-mode differentiation, which cannot look into a kernel."""
    return _C._are_functorch_transforms_active() or forward_ad._current_level >= 0


# The same for those who keep its answer: what returns False then, and an attribute of a module that stays what it is.
are_transforms_active = _C._are_functorch_transforms_active
FORWARD_MODE = forward_ad, "_current_level"


def may_overwrite(slope: float) -> bool:
    """An activation of this slope may be computed in place, in a tensor that nobody else has."""
    return slope >= 0 and not torch.compiler.is_compiling() and not is_transformed()


def is_watched() -> bool:
    """Each module is to be called by itself: there are hooks on all modules, torch.jit.trace or torch.export records
    for other runtimes, or a TorchFunctionMode looks on (not that of torch.device, which is everybody's)."""
    # PyTorch's stubs do not say that there may be no tracing state.
    traced = _C._get_tracing_state() is not None  # pyright: ignore[reportUnnecessaryComparison]
    if _has_any_global_hook() or traced or is_exporting():
        return True
    return _C._len_torch_function_stack() > 0 and not all(
        isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack()
    )


# `is_watched` for those who keep its answer: dicts of torch.nn.modules.module that are empty, and functions that return
# this, while it is no. (With a DeviceContext they say otherwise, and it has to be asked.)
GLOBAL_HOOKS = tuple(f"_global_{name}" for name in (
    "backward_pre_hooks", "backward_hooks", "forward_pre_hooks", "forward_hooks", "forward_hooks_always_called",
    "forward_hooks_with_kwargs",
))  # fmt: skip
WATCHERS = {_C._get_tracing_state: None, is_exporting: False, _C._len_torch_function_stack: 0}

# torch.backends.cudnn.enabled, without the way through a property of a module.
is_cudnn_enabled = _C._get_cudnn_enabled


def has_dispatch_mode() -> bool:
    """A torch dispatch mode is on (FakeTensorMode, FlopCounterMode, ...)."""
    return _C._len_torch_dispatch_stack() > 0


is_autocast_enabled = _C._is_any_autocast_enabled  # on any type of device


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype that torch.autocast makes of a convolution's tensors on this device; None: it is off."""
    if not is_autocast_enabled() or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def apply_of(function: type[torch.autograd.Function]) -> Callable:
    """`function.apply` without its look at the transforms of torch.func, under which no kernel of ours is called."""
    return super(torch.autograd.Function, function).apply  # pyright: ignore[reportAttributeAccessIssue]


def is_several(tensor: Tensor) -> bool:
    """A gradient that stands for several (`is_grads_batched`), or one of a transform."""
    functorch = _C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    return functorch.is_legacy_batchedtensor(tensor) or functorch.is_functorch_wrapped_tensor(tensor)


def has_kernel(name: str, device_type: str) -> bool:
    """The registered operator "inpaint_fast::<name>" has a kernel for this type of device."""
    return _C._dispatch_has_kernel_for_dispatch_key(f"inpaint_fast::{name}", device_type.upper())
