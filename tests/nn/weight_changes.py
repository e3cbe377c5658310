"""The ways in which people change the parameters and buffers of a network.

Each is a function (net, use): what has to be prepared, `use()` as often as it likes, which runs the network, then the
change. The same call on two equal networks leaves them equal.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import inpaint_fast as ipf

Change = Callable[[nn.Module, Callable[[], object]], None]
INVISIBLE: dict[str, Change] = {}  # PyTorch's version counters and addresses stay what they were
VISIBLE: dict[str, Change] = {}


def _listed(changes: dict[str, Change]) -> Callable[[Change], Change]:
    return lambda change: changes.setdefault(change.__name__, change)


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def convolutions(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]


def numbers(net: nn.Module) -> list[Tensor]:
    """All parameters, and the buffers that are no counters."""
    return [*net.parameters(), *(buffer for buffer in net.buffers() if buffer.is_floating_point())]


# ---- optimizers ----


def _stepped(make: Callable[..., torch.optim.Optimizer], **settings) -> Change:
    def change(net: nn.Module, use: Callable[[], object]) -> None:
        optimizer = make(list(net.parameters()), lr=0.05, **settings)
        for _ in range(2):
            use()
            for p in net.parameters():  # given: Adam makes a whole step of a gradient's rounding errors, too
                p.grad = torch.linspace(-1, 2, p.numel(), dtype=p.dtype).view_as(p)
            optimizer.step()
            optimizer.zero_grad()

    return change


for _cls in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad):
    INVISIBLE[f"{_cls.__name__}_fused"] = _stepped(_cls, fused=True)
VISIBLE["Adam_foreach"] = _stepped(torch.optim.Adam, foreach=True)
VISIBLE["RMSprop"] = _stepped(torch.optim.RMSprop)
VISIBLE["ClippedRMSprop"] = _stepped(ipf.optim.ClippedRMSprop, clip=0.1)
VISIBLE["Adam_capturable_single_tensor"] = _stepped(torch.optim.Adam, foreach=False)


# ---- what no counter tells ----


@_listed(INVISIBLE)
def the_same_vector_twice(net, use):
    vector = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    nn.utils.vector_to_parameters(vector, net.parameters())
    use()
    vector.mul_(0.5)
    nn.utils.vector_to_parameters(vector, net.parameters())


def _treble(net: nn.Module) -> None:
    with torch.no_grad():
        for tensor in numbers(net):
            tensor.mul_(3)


@_listed(INVISIBLE)
def another_process(net, use):
    net.share_memory()
    use()
    process = mp.get_context("fork").Process(target=_treble, args=(net,))
    process.start()
    process.join()
    assert process.exitcode == 0


@_listed(INVISIBLE)
def numpy_views(net, use):
    views = [tensor.detach().numpy() for tensor in numbers(net)]
    use()
    for view in views:
        view *= 2


@_listed(INVISIBLE)
def data_clamped(net, use):
    for p in net.parameters():
        p.data.clamp_(-0.02, 0.02)


@_listed(INVISIBLE)
def data_copied(net, use):
    for tensor in numbers(net):
        tensor.data.copy_(tensor.detach() * 2)


@_listed(INVISIBLE)
def data_multiplied_at_once(net, use):
    torch._foreach_mul_([tensor.data for tensor in numbers(net)], 0.5)


@_listed(INVISIBLE)
def data_clipped_by_ours(net, use):
    ipf.clip_weights_([p.data for p in net.parameters()], 0.02)


@_listed(INVISIBLE)
def memory_written(net, use):
    for tensor in numbers(net):
        other = tensor.detach() * 0.25
        ctypes.memmove(tensor.data_ptr(), other.data_ptr(), other.numel() * other.element_size())


@_listed(INVISIBLE)
def storage_copied(net, use):
    for tensor in numbers(net):
        storage = tensor.untyped_storage()  # of other tensors, too, where these are parts of one vector
        other = torch.empty(0, dtype=tensor.dtype).set_(storage.clone())
        other.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).mul_(0.25)
        storage.copy_(other.untyped_storage())


@_listed(INVISIBLE)
def dlpack_alias(net, use):
    aliases = [torch.from_dlpack(torch.utils.dlpack.to_dlpack(tensor.detach())) for tensor in numbers(net)]
    use()
    for alias in aliases:
        alias.mul_(2)


@_listed(INVISIBLE)
def a_mapped_file(net, use):
    weight = convolutions(net)[0].weight
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(weight.numel() * weight.element_size())
        mapped = torch.from_file(file.name, shared=True, size=weight.numel(), dtype=weight.dtype)
        weight.data = mapped.copy_(weight.detach().reshape(-1)).view(weight.shape)
        use()
        written = np.memmap(file.name, weight.detach().numpy().dtype, "r+")
        written *= 2
        written.flush()


@_listed(INVISIBLE)
def counters_preserved(net, use):
    """As FSDP writes to what it shards."""
    for tensor in numbers(net):
        with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(tensor):
            tensor.mul_(2)


@_listed(INVISIBLE)
def statistics_by_data(net, use):
    for norm in norms(net) or convolutions(net):
        for tensor in (norm.running_mean, norm.running_var) if isinstance(norm, nn.BatchNorm2d) else norm.parameters():
            tensor.data.add_(0.5)


@_listed(INVISIBLE)
def another_module_with_the_same_tensors(net, use):
    """Batch norm in training moves running statistics that a second module shares; a second convolution is clipped."""
    for norm in norms(net):
        other = nn.BatchNorm2d(norm.num_features, dtype=norm.running_mean.dtype)
        other.running_mean, other.running_var, other.weight = norm.running_mean, norm.running_var, norm.weight
        other(torch.linspace(-3, 5, 8 * norm.num_features, dtype=norm.running_mean.dtype).view(2, -1, 2, 2))
        other.weight.data.mul_(2)
    for conv in convolutions(net):
        other = nn.Module()
        other.register_parameter("weight", conv.weight)
        other.weight.data.clamp_(-0.02, 0.02)


# ---- what PyTorch sees ----


@_listed(VISIBLE)
def in_place(net, use):
    _treble(net)


@_listed(VISIBLE)
def in_place_in_inference_mode(net, use):
    with torch.inference_mode():
        for p in net.parameters():
            p.mul_(2)


@_listed(VISIBLE)
def a_view(net, use):
    views = [tensor.detach().view(-1) for tensor in numbers(net)]
    use()
    for view in views:
        view[: view.numel() // 2].mul_(3)


@_listed(VISIBLE)
def state_loaded(net, use):
    net.load_state_dict({name: t * 2 if t.is_floating_point() else t for name, t in net.state_dict().items()})


@_listed(VISIBLE)
def state_assigned(net, use):
    state = {name: t * 2 if t.is_floating_point() else t for name, t in net.state_dict().items()}
    net.load_state_dict(state, assign=True)


@_listed(VISIBLE)
def averaged_and_back(net, use):
    """A moving average is swapped in, used, and the weights of before are put back; then the average stays."""
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    average = {name: t * 0.5 if t.is_floating_point() else t for name, t in before.items()}
    for state in (average, before, average):
        for name, tensor in net.state_dict().items():
            tensor.copy_(state[name])
        use()


@_listed(VISIBLE)
def new_parameters(net, use):
    for module in net.modules():
        for name, p in list(module._parameters.items()):
            if p is not None:
                setattr(module, name, nn.Parameter(p.detach() * 2))
    for norm in norms(net):
        norm.running_var = norm.running_var * 2


@_listed(VISIBLE)
def data_assigned(net, use):
    for tensor in numbers(net):
        tensor.data = tensor.detach() * 2


@_listed(VISIBLE)
def tensors_set(net, use):
    with torch.no_grad():
        for tensor in numbers(net):
            tensor.set_(tensor.detach() * 2)


@_listed(VISIBLE)
def tensors_swapped(net, use):
    for p in list(net.parameters()):
        torch.utils.swap_tensors(p, nn.Parameter(p.detach() * 2))
    for norm in norms(net):
        torch.utils.swap_tensors(norm.running_mean, norm.running_mean + 1)


@_listed(VISIBLE)
def rounded(net, use):
    net.to(torch.bfloat16).to(torch.float32)


@_listed(VISIBLE)
def initialised(net, use):
    for i, p in enumerate(net.parameters()):
        nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(i))


class _Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


@_listed(VISIBLE)
def parametrized(net, use):
    for module in [*convolutions(net), *norms(net)]:
        parametrize.register_parametrization(module, "weight", _Doubled())


@_listed(VISIBLE)
def parametrized_and_removed(net, use):
    for conv in convolutions(net):
        parametrizations.weight_norm(conv)
        conv.parametrizations.weight.original0.data.mul_(2)
    use()
    for conv in convolutions(net):
        parametrize.remove_parametrizations(conv, "weight")


@_listed(VISIBLE)
def pruned(net, use):
    for conv in convolutions(net):
        prune.l1_unstructured(conv, "weight", 0.5)


ALL = {**INVISIBLE, **VISIBLE}
