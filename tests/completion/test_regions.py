"""Pictures completed by the GLCIC network: any size, any holes, bounded regions."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import inpaint_fast as ipf
from inpaint_fast.completion.regions import CONTEXT, TILE
from inpaint_fast.data import box, center_square, read_image, samples
from inpaint_fast.models import CompletionNetwork


@pytest.fixture
def network() -> CompletionNetwork:
    torch.manual_seed(0)
    network = CompletionNetwork(4, mean_pixel=(0.2, 0.5, 0.7), hole=40)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return network.eval()


def noise(*size: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def whole(network: CompletionNetwork, picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the network says to the whole picture; its sides are multiples of 4."""
    with torch.no_grad():
        return network(picture[None] / 255, mask[None])[0]


def assert_filled_with(
    completed: torch.Tensor, picture: torch.Tensor, mask: torch.Tensor, answer: torch.Tensor
) -> None:
    inside = mask[0]
    assert torch.equal(completed[:, ~inside], picture[:, ~inside])
    assert ((completed / 255 - answer)[:, inside].abs() <= 0.5 / 255 + 1e-5).all()


@pytest.mark.parametrize("size", [(1, 2), (2, 70), (37, 5), (63, 65), (130, 217), (1, 300)])
def test_any_size_and_every_known_pixel_untouched(network, size) -> None:
    picture, draws = noise(*size), torch.Generator().manual_seed(1)
    for share in (0.02, 0.5, 0.98):
        mask = torch.rand(1, *size, generator=draws) < share
        mask[0, 0, 0], mask[0, -1, -1] = False, True
        completed = ipf.complete(picture, mask, weights=network)
        assert completed.dtype == torch.uint8 and torch.equal(completed[:, ~mask[0]], picture[:, ~mask[0]])


def test_a_picture_of_multiples_of_4_is_the_networks_own_answer(network) -> None:
    picture = samples("heldout")[0][:, :160, :200]
    mask = box(160, 200, 0, 0, 30, 40) | box(160, 200, 150, 120, 40, 40) | box(160, 200, 90, 60, 12, 9)
    completed = ipf.complete(picture, mask, weights=network)
    assert_filled_with(completed, picture, mask, whole(network, picture, mask))


def test_other_sizes_are_padded_and_cropped_back(network) -> None:
    picture = samples("heldout")[0][:, :61, :90]
    mask = box(61, 90, 70, 30, 20, 31)
    wide = torch.nn.functional.pad(picture[None].float(), (0, 2, 0, 3), mode="replicate")[0].byte()
    wide_mask = torch.nn.functional.pad(mask[None].float(), (0, 2, 0, 3), mode="replicate")[0] > 0
    answer = whole(network, wide, wide_mask)[:, :61, :90]
    assert_filled_with(ipf.complete(picture, mask, weights=network), picture, mask, answer)


def test_a_region_answers_as_the_whole_picture_does(network) -> None:
    """The context is as wide as the network sees: a large picture may be cut without a trace."""
    seen: list[torch.Size] = []
    network.layer1.register_forward_hook(lambda _module, _input, output: seen.append(output.shape[2:]))
    picture = noise(760, 520)
    mask = box(760, 520, 301, 402, 40, 33) | box(760, 520, 250, 391, 9, 40) | box(760, 520, 3, 740, 17, 20)
    completed = ipf.complete(picture, mask, weights=network)
    assert len(seen) > 1 and all(max(side) < 520 for side in seen)
    boxes = [tuple(side) for side in seen]
    assert all(side[0] <= TILE + 40 + 2 * CONTEXT + 4 for side in boxes)
    assert_filled_with(completed, picture, mask, whole(network, picture, mask))


def test_long_holes_are_reduced_to_what_the_network_was_trained_on(network) -> None:
    seen: list[torch.Size] = []
    network.layer1.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    picture = torch.full((3, 400, 400), 90, dtype=torch.uint8)
    ipf.complete(picture, center_square(400, 400, 160), weights=network)
    (reduced,) = seen
    assert reduced.shape[2:] == (100, 100)
    hole = reduced[0, 3] > 0
    assert hole.sum() == 40 * 40 and hole[30:70, 30:70].all()
    torch.testing.assert_close(reduced[0, :3][:, ~hole], torch.full((3, 8400), 90 / 255))


def test_what_the_hole_held_does_not_matter(network) -> None:
    picture = samples("heldout")[1]
    mask = box(*picture.shape[1:], 60, 70, 90, 50) | box(*picture.shape[1:], 150, 75, 20, 20)
    spoiled = picture.masked_fill(mask, 255)
    assert torch.equal(ipf.complete(picture, mask, weights=network), ipf.complete(spoiled, mask, weights=network))


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1"])
def test_grey_and_transparent_files(network, mode, tmp_path) -> None:
    path = tmp_path / "picture.png"
    Image.effect_noise((50, 44), 90).convert("RGB").convert(mode).save(path)
    mask = box(44, 50, 10, 8, 20, 30)
    completed = ipf.complete(path, mask, weights=network)
    assert completed.shape == (3, 44, 50)
    assert torch.equal(completed[:, ~mask[0]], read_image(path)[:, ~mask[0]])


def test_a_picture_of_one_pixel(network) -> None:
    picture = noise(1, 1)
    assert torch.equal(ipf.complete(picture, torch.zeros(1, 1, 1), weights=network), picture)
    with pytest.raises(ValueError, match="mask.*whole picture"):
        ipf.complete(picture, torch.ones(1, 1, 1), weights=network)


def test_no_hole_gives_the_picture_and_all_hole_an_error(network) -> None:
    picture = noise(40, 30)
    assert torch.equal(ipf.complete(picture, torch.zeros(1, 40, 30), weights=network), picture)
    with pytest.raises(ValueError, match="mask.*whole picture"):
        ipf.complete(picture, torch.ones(1, 40, 30), weights=network)


def test_other_shapes_are_named(network) -> None:
    with pytest.raises(ValueError, match=r"mask.*\(1, 40, 30\).*\(1, 30, 40\)"):
        ipf.complete(noise(40, 30), torch.ones(1, 30, 40), weights=network)
    with pytest.raises(ValueError, match=r"image.*\(3, H, W\).*\(1, 40, 30\)"):
        ipf.complete(noise(40, 30)[:1], torch.ones(1, 40, 30), weights=network)


def test_fifty_megapixels(network) -> None:
    """Regions alone are looked at: a hole of 30 pixels, one of 4000 by 3000, and a mask drawn in a corner."""
    picture = noise(64, 64).repeat(1, 100, 125)  # 6400 x 8000
    mask = box(6400, 8000, 3000, 2000, 4000, 3000)
    mask |= box(6400, 8000, 7990, 6390, 10, 10) | box(6400, 8000, 9, 50, 30, 30)
    seen: list[int] = []
    network.layer1.register_forward_hook(lambda _module, _input, output: seen.append(output[0, 0].numel()))
    completed = ipf.complete(picture, mask, weights=network)
    assert len(seen) == 3 and max(seen) <= (TILE + 40 + 2 * CONTEXT + 4) ** 2
    for rows in range(0, 6400, 800):  # a comparison in one piece would take more memory than the completion
        part = slice(rows, rows + 800)
        assert ((completed[:, part] == picture[:, part]) | mask[:, part]).all()
    assert not torch.equal(completed[:, 3000:3400, 4000:4400], picture[:, 3000:3400, 4000:4400])


def test_the_network_is_left_as_it_was(network) -> None:
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ipf.complete(noise(40, 40), center_square(40, 40), weights=network)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
