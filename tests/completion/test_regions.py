"""Pictures completed by the GLCIC network: any size, any holes, regions of the size of its training."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import inpaint_fast as ipf
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


def test_a_picture_of_the_size_of_the_training_is_the_networks_own_answer(network) -> None:
    network.hole = 120  # in pictures of 200
    picture = samples("heldout")[0][:, :160, :200]
    mask = box(160, 200, 0, 0, 30, 40) | box(160, 200, 150, 120, 40, 40) | box(160, 200, 90, 60, 12, 9)
    completed = ipf.complete(picture, mask, weights=network)
    assert_filled_with(completed, picture, mask, whole(network, picture, mask))


def test_other_sizes_are_padded_and_cropped_back(network) -> None:
    network.hole = 120
    picture = samples("heldout")[0][:, :61, :90]
    mask = box(61, 90, 70, 30, 20, 31)
    wide = torch.nn.functional.pad(picture[None].float(), (0, 2, 0, 3), mode="replicate")[0].byte()
    wide_mask = torch.nn.functional.pad(mask[None].float(), (0, 2, 0, 3), mode="replicate")[0] > 0
    answer = whole(network, wide, wide_mask)[:, :61, :90]
    assert_filled_with(ipf.complete(picture, mask, weights=network), picture, mask, answer)


def seen_by(network) -> list[torch.Tensor]:
    """What the network will be given: pictures, and in a fourth channel holes."""
    seen: list[torch.Tensor] = []
    network.layer1.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    return seen


@pytest.mark.parametrize(("left", "top", "corner"), [(301, 402, (283, 388)), (3, 715, (0, 692)), (480, 0, (452, 0))])
def test_a_large_picture_is_seen_in_regions_of_the_size_of_the_training(network, left, top, corner) -> None:
    """Of 68 pixels for holes of 40: about the hole, and moved into the picture."""
    picture, mask = noise(760, 520), box(760, 520, left, top, 33, 40)
    seen = seen_by(network)
    completed = ipf.complete(picture, mask, weights=network)
    assert [tuple(each.shape[2:]) for each in seen] == [(68, 68)]
    region = (slice(None), slice(corner[1], corner[1] + 68), slice(corner[0], corner[0] + 68))
    assert_filled_with(completed[region], picture[region], mask[region], whole(network, picture[region], mask[region]))
    assert torch.equal(completed[:, ~mask[0]], picture[:, ~mask[0]])


def test_long_holes_that_are_not_thick_are_seen_as_they_are(network) -> None:
    picture, mask = noise(300, 400), box(300, 400, 40, 100, 300, 12)
    seen = seen_by(network)
    ipf.complete(picture, mask, weights=network)
    assert [tuple(each.shape[2:]) for each in seen] == [(68, 68)] * 8  # of 40 pixels of the hole each
    for start, each in zip(range(40, 340, 40), seen, strict=True):
        first = (start + min(start + 40, 340) - 68) // 2
        hole = each[0, 3] > 0
        assert torch.equal(hole, mask[0, 72:140, first : first + 68])
        known = picture[:, 72:140, first : first + 68] / 255
        torch.testing.assert_close(each[0, :3][:, ~hole], known[:, ~hole])


def test_long_holes_are_reduced_to_what_the_network_was_trained_on(network) -> None:
    seen = seen_by(network)
    picture = torch.full((3, 400, 400), 90, dtype=torch.uint8)
    ipf.complete(picture, center_square(400, 400, 160), weights=network)
    (reduced,) = seen
    assert reduced.shape[2:] == (68, 68)
    hole = reduced[0, 3] > 0
    assert hole.sum() == 40 * 40 and hole[14:54, 14:54].all()
    torch.testing.assert_close(reduced[0, :3][:, ~hole], torch.full((3, 68 * 68 - 40 * 40), 90 / 255))


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
    seen = seen_by(network)
    completed = ipf.complete(picture, mask, weights=network)
    assert len(seen) == 4 and all(max(each.shape[2:]) <= 68 for each in seen)  # two of the hole of 4000 by 3000
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
