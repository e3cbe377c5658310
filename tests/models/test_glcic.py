"""The GLCIC networks against the published architecture, written here from plain torch.nn with the public names."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from inpaint_fast.models import CompletionNetwork, ContextDiscriminator, GlobalDiscriminator, LocalDiscriminator
from inpaint_fast.models.glcic import patches, public_names


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def numbered(number: int, kind: str, layer: nn.Module, channels: int, order: str) -> list[tuple[str, nn.Module]]:
    after = [(f"act{number}", nn.ReLU()), (f"bn{number}", nn.BatchNorm2d(channels))]
    return [(f"{kind}{number}", layer), *(after if order == "act_norm" else after[::-1])]


def published_completion(c: int, order: str) -> nn.Sequential:
    """Iizuka et al., table 2; names as in GLCIC-PyTorch."""
    rows = [  # kernel, dilation, stride, padding, in, out
        (5, 1, 1, 2, 4, c), (3, 1, 2, 1, c, 2 * c), (3, 1, 1, 1, 2 * c, 2 * c), (3, 1, 2, 1, 2 * c, 4 * c),
        (3, 1, 1, 1, 4 * c, 4 * c), (3, 1, 1, 1, 4 * c, 4 * c), (3, 2, 1, 2, 4 * c, 4 * c), (3, 4, 1, 4, 4 * c, 4 * c),
        (3, 8, 1, 8, 4 * c, 4 * c), (3, 16, 1, 16, 4 * c, 4 * c), (3, 1, 1, 1, 4 * c, 4 * c),
        (3, 1, 1, 1, 4 * c, 4 * c), None, (3, 1, 1, 1, 2 * c, 2 * c), None, (3, 1, 1, 1, c, c // 2),
    ]  # fmt: skip
    layers: list[tuple[str, nn.Module]] = []
    for number, row in enumerate(rows, 1):
        if row is None:
            before, after = (4 * c, 2 * c) if number == 13 else (2 * c, c)
            transposed = nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1)
            layers += numbered(number, "deconv", transposed, after, order)
        else:
            kernel, dilation, stride, padding, before, after = row
            layer = nn.Conv2d(before, after, kernel, stride=stride, padding=padding, dilation=dilation)
            layers += numbered(number, "conv", layer, after, order)
    layers += [("conv17", nn.Conv2d(c // 2, 3, 3, padding=1)), ("act17", nn.Sigmoid())]
    return nn.Sequential(OrderedDict(layers))


class PublishedDiscriminator(nn.Module):
    """Iizuka et al., table 3, or otenim's for CelebA; the output is a probability."""

    def __init__(self, local: tuple[int, int], whole: tuple[int, int], c: int, features: int, order: str) -> None:
        super().__init__()
        self.model_ld, self.model_gd = (self.branch(*of, c, features, order) for of in (local, whole))
        self.linear1 = nn.Linear(2 * features, 1)

    @staticmethod
    def branch(convolutions: int, left: int, c: int, features: int, order: str) -> nn.Sequential:
        layers, before = [], 3
        for number in range(1, convolutions + 1):
            after = (c, 2 * c, 4 * c, 8 * c, 8 * c, 8 * c)[number - 1]
            layers += numbered(number, "conv", nn.Conv2d(before, after, 5, stride=2, padding=2), after, order)
            before = after
        number = convolutions + 1
        layers += [(f"flatten{number}", nn.Flatten()), (f"linear{number}", nn.Linear(before * left * left, features))]
        return nn.Sequential(OrderedDict([*layers, (f"act{number}", nn.ReLU())]))

    def forward(self, patch: Tensor, picture: Tensor) -> Tensor:
        return torch.sigmoid(self.linear1(torch.cat([self.model_ld(patch), self.model_gd(picture)], dim=1)))


def with_statistics(network: nn.Module) -> nn.Module:
    """Running statistics, scales and shifts that no initialisation gives."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.3, 0.3)
    return network


def copied(ours: nn.Module, published: nn.Module) -> nn.Module:
    theirs = published.state_dict()
    names = public_names(ours)
    assert set(names) == set(theirs)
    ours.load_state_dict({own: theirs[name] for name, own in names.items()})
    return ours


ORDERS = pytest.mark.parametrize("order", ["act_norm", "norm_act"])


def test_parameter_counts() -> None:
    assert count(CompletionNetwork()) == 6_072_131
    assert count(ContextDiscriminator()) == 39_557_121
    assert count(ContextDiscriminator(128, 256)) == 45_063_681
    assert (count(LocalDiscriminator()), count(LocalDiscriminator(128))) == (15_583_232, 19_253_248)
    assert (count(GlobalDiscriminator()), count(GlobalDiscriminator(256))) == (23_971_840, 25_808_384)


@pytest.mark.proves(
    "CompletionNetwork",
    "ContextDiscriminator",
    equals="the public weight files' names",
    source="GLCIC-PyTorch",
    within="exactly",
)
def test_public_names_are_those_of_the_files() -> None:
    names = public_names(CompletionNetwork(4))
    assert list(names) == list(published_completion(4, "act_norm").state_dict()) and len(names) == 114
    celeba, places2 = (public_names(ContextDiscriminator(*sizes, 4, 8)) for sizes in ((96, 160), (128, 256)))
    assert list(celeba) == list(PublishedDiscriminator((5, 3), (5, 5), 4, 8, "act_norm").state_dict())
    assert list(places2) == list(PublishedDiscriminator((5, 4), (6, 4), 4, 8, "act_norm").state_dict())
    assert (len(celeba), len(places2)) == (76, 83)


@pytest.mark.proves(
    "CompletionNetwork",
    equals="the network written in plain torch.nn with GLCIC-PyTorch's names",
    source="Iizuka, Simo-Serra, Ishikawa (2017), table 2",
    dtypes="float64, and float32 within 4 times PyTorch's rounding",
)
@ORDERS
@pytest.mark.parametrize("train", [True, False])
def test_completion_network_equals_the_published_one(order: str, train: bool) -> None:
    torch.manual_seed(0)
    published = with_statistics(published_completion(8, order)).train(train)
    ours = copied(CompletionNetwork(8, order, mean_pixel=(0.1, 0.5, 0.8)), published).train(train)
    picture, mask = torch.rand(2, 3, 44, 36), torch.rand(2, 1, 44, 36) < 0.3
    mean = torch.tensor([0.1, 0.5, 0.8])[:, None, None]
    hole = mask.float()
    input = torch.cat([picture * (1 - hole) + mean * hole, hole], dim=1)
    exact = copy.deepcopy(published).double()(input.double())
    torch.testing.assert_close(copy.deepcopy(ours).double()(picture.double(), mask), exact)
    # Where pictures are channels_last PyTorch's own normalisation rounds more coarsely, ours on larger maps does not.
    rounded = published.to(memory_format=torch.channels_last)(input.to(memory_format=torch.channels_last))
    assert (ours(picture, mask) - exact).abs().max() <= 4 * (rounded - exact).abs().max() + 1e-6
    torch.testing.assert_close(ours(picture, mask[:1]), ours(picture, mask[:1].expand(2, 1, 44, 36)))


def test_every_layer_runs_channels_last_whatever_the_picture_has() -> None:
    network, seen = CompletionNetwork(4).eval(), []
    for layer in network:
        layer.register_forward_hook(
            lambda _module, _input, output: seen.append(output.is_contiguous(memory_format=torch.channels_last))
        )
    picture, mask = torch.rand(2, 3, 16, 20), torch.rand(2, 1, 16, 20) < 0.3
    completed = network(picture, mask)
    assert torch.equal(network(picture.contiguous(memory_format=torch.channels_last), mask), completed)
    assert len(seen) == 2 * 17 and all(seen)


def test_published_width() -> None:
    """The real network once, with 64 channels."""
    torch.manual_seed(0)
    published = with_statistics(published_completion(64, "act_norm")).eval()
    ours = copied(CompletionNetwork(), published).eval()
    picture, mask = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64) < 0.3
    with torch.no_grad():
        expected = published(torch.cat([picture.masked_fill(mask, 0.5), mask.float()], dim=1))
        torch.testing.assert_close(ours(picture, mask), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.proves(
    "ContextDiscriminator",
    "LocalDiscriminator",
    "GlobalDiscriminator",
    equals="the discriminators written in plain torch.nn with GLCIC-PyTorch's names",
    source="Iizuka, Simo-Serra, Ishikawa (2017), table 3",
)
@ORDERS
@pytest.mark.parametrize(("sizes", "local", "whole"), [((96, 160), (5, 3), (5, 5)), ((128, 256), (5, 4), (6, 4))])
@pytest.mark.parametrize("train", [True, False])
def test_discriminator_equals_the_published_one(order, sizes, local, whole, train) -> None:
    torch.manual_seed(0)
    published = with_statistics(PublishedDiscriminator(local, whole, 4, 16, order)).train(train)
    ours = copied(ContextDiscriminator(*sizes, 4, 16, order), published).train(train)
    patch, picture = torch.rand(2, 3, sizes[0], sizes[0]), torch.rand(2, 3, sizes[1], sizes[1])
    torch.testing.assert_close(ours(patch, picture).sigmoid()[:, None], published(patch, picture), rtol=1e-4, atol=1e-5)


@ORDERS
def test_one_pass_of_two_groups_is_two_passes(order: str) -> None:
    torch.manual_seed(0)
    one, two = ContextDiscriminator(20, 32, 4, 8, order), ContextDiscriminator(20, 32, 4, 8, order)
    two.load_state_dict(one.state_dict())
    patch, picture = torch.rand(6, 3, 20, 20), torch.rand(6, 3, 32, 32)
    apart = torch.cat([two(patch[part], picture[part]) for part in (slice(3), slice(3, 6))])
    together = one(patch, picture, groups=2)
    torch.testing.assert_close(together, apart)
    for loss in (together, apart):
        loss.square().sum().backward()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    for (name, a), b in zip(one.named_buffers(), two.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    one.eval()
    torch.testing.assert_close(one(patch, picture, groups=2), one(patch, picture))


@pytest.mark.parametrize("size", [4, 28, 32, 64, 192, 260])
def test_small_and_odd_sizes(size: int) -> None:
    local = min(size, 20)
    discriminator = ContextDiscriminator(local, size, 2, 4)
    assert discriminator(torch.rand(2, 3, local, local), torch.rand(2, 3, size, size)).shape == (2,)
    picture = torch.rand(2, 3, size, size)
    assert CompletionNetwork(2)(picture, torch.ones(1, 1, size, size)).shape == picture.shape


def test_patches_are_cut_and_their_gradient_put_back() -> None:
    picture = torch.rand(3, 2, 9, 12, requires_grad=True)
    corners = torch.tensor([[0, 0], [4, 7], [2, 5]])
    cut = patches(picture, corners, 5)
    expected = torch.stack([p[:, t : t + 5, left : left + 5] for p, (t, left) in zip(picture, corners, strict=True)])
    assert torch.equal(cut, expected)
    weight = torch.rand_like(cut)
    ours = torch.autograd.grad((cut * weight).sum(), picture)[0]
    assert torch.equal(ours, torch.autograd.grad((expected * weight).sum(), picture)[0])


def test_exported_program_takes_any_size() -> None:
    torch.manual_seed(0)
    network = with_statistics(CompletionNetwork(4)).eval()
    batch, height, width = torch.export.Dim("batch"), torch.export.Dim("height"), torch.export.Dim("width")
    shape = {0: batch, 2: 4 * height, 3: 4 * width}
    example = (torch.rand(2, 3, 32, 40), torch.rand(2, 1, 32, 40) < 0.3)
    program = torch.export.export(network, example, dynamic_shapes=(shape, shape)).module()
    for size in ((1, 64, 64), (3, 36, 100)):
        inputs = torch.rand(size[0], 3, *size[1:]), torch.rand(size[0], 1, *size[1:]) < 0.3
        torch.testing.assert_close(program(*inputs), network(*inputs), rtol=1e-4, atol=1e-5)


def test_wrong_use_is_named() -> None:
    for size in (0, 30, 66):
        with pytest.raises(ValueError, match=rf"size must be a multiple of 4.*4, 8, 12.*got {size}"):
            GlobalDiscriminator(size)
    with pytest.raises(ValueError, match="local.*160.*got 164"):
        ContextDiscriminator(164, 160)
    with pytest.raises(ValueError, match="order.*'relu'"):
        CompletionNetwork(order="relu")
    with pytest.raises(ValueError, match="channels.*even.*3"):
        CompletionNetwork(3)
    with pytest.raises(ValueError, match="mean_pixel.*117"):
        CompletionNetwork(4, mean_pixel=(117, 104, 123))
    network = CompletionNetwork(2)
    with pytest.raises(ValueError, match=r"picture.*multiples of 4.*\(1, 3, 30, 32\)"):
        network(torch.rand(1, 3, 30, 32), torch.rand(1, 1, 30, 32))
    with pytest.raises(ValueError, match=r"picture.*\(1, 1, 32, 32\)"):
        network(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32))
    with pytest.raises(ValueError, match=r"mask.*\(1\|1, 1, 32, 32\).*\(1, 1, 32, 36\)"):
        network(torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 36))
    with pytest.raises(ValueError, match=r"LocalDiscriminator.*\(N, 3, 96, 96\).*\(1, 3, 64, 64\)"):
        ContextDiscriminator(96, 160, 2, 4)(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 160, 160))
    with pytest.raises(ValueError, match="multiple of 2.*got 3"):
        ContextDiscriminator(20, 32, 2, 4)(torch.rand(3, 3, 20, 20), torch.rand(3, 3, 32, 32), groups=2)
