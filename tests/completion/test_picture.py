from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional as F

import inpaint_fast as ipf
from inpaint_fast.completion import WeightsError, complete_batch, harmonic, load_network, ring_mean, save_network
from inpaint_fast.data import Batch, box, free_form, samples, to_float, write_png
from inpaint_fast.models import CompletionNetwork, UNetGenerator, WassersteinCritic
from inpaint_fast.training.metrics import hole_metrics


@pytest.fixture
def generator() -> UNetGenerator:
    torch.manual_seed(0)
    return UNetGenerator(4).eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (37, 5), (64, 64), (120, 217)])
def test_any_size_and_every_known_pixel_untouched(generator, size) -> None:
    picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    draws = torch.Generator().manual_seed(1)
    for share in (0.02, 0.5, 0.98):
        mask = torch.rand(1, *size, generator=draws) < share
        if mask.all():
            continue
        completed = ipf.complete(picture, mask, weights=generator)
        assert completed.dtype == torch.uint8 and completed.shape == picture.shape
        assert torch.equal(completed[:, ~mask[0]], picture[:, ~mask[0]])


def test_holes_at_the_border_and_free_form(generator) -> None:
    picture = samples("heldout")[0]
    height, width = picture.shape[1:]
    draws = torch.Generator().manual_seed(0)
    mask = free_form(height, width, draws) | box(height, width, 0, 0, 40, 30) | box(height, width, width - 9, 50, 9, 9)
    completed = ipf.complete(picture, mask, weights=generator)
    assert torch.equal(completed[:, ~mask[0]], picture[:, ~mask[0]])
    assert not torch.equal(completed[:, mask[0]], picture[:, mask[0]])


def test_what_the_hole_held_does_not_matter(generator) -> None:
    picture = samples("heldout")[1].clone()
    mask = box(*picture.shape[1:], 60, 70, 90, 50) | box(*picture.shape[1:], 150, 75, 20, 20)
    spoiled = picture.masked_fill(mask, 255)
    assert torch.equal(ipf.complete(picture, mask, weights=generator), ipf.complete(spoiled, mask, weights=generator))


@pytest.mark.proves(
    "complete",
    equals="the generator's own answer in the hole, the picture outside",
    within="bit for bit",
)
def test_a_64_pixel_picture_is_the_generators_own_answer(generator) -> None:
    picture = samples("heldout")[2][:, 100:164, 100:164]
    mask = box(64, 64, 16, 16, 32, 32)
    expected = generator((picture / 255).masked_fill(mask, 0)[None])[0]
    completed = ipf.complete(picture, mask, weights=generator)[:, 16:48, 16:48]
    assert ((completed / 255 - expected).abs() <= 0.5 / 255 + 1e-5).all()


def test_no_hole_gives_the_picture_and_all_hole_an_error(generator) -> None:
    picture = samples("heldout")[0]
    assert torch.equal(ipf.complete(picture, torch.zeros(1, *picture.shape[1:]), weights=generator), picture)
    with pytest.raises(ValueError, match="mask.*whole picture"):
        ipf.complete(picture, torch.ones(1, *picture.shape[1:]), weights=generator)


@pytest.mark.parametrize("kind", ["soft", "nearly 0 and 1", "0 and 255", "0 to 255"])
def test_a_mask_means_the_same_wherever_it_enters(generator, kind) -> None:
    picture, hole = samples("heldout")[0][:, :64, :64], box(64, 64, 16, 16, 32, 32)
    soft = F.avg_pool2d(hole.float(), 9, 1, 4)
    mask = {
        "soft": soft,
        "nearly 0 and 1": hole + 1e-6,
        "0 and 255": hole.to(torch.uint8) * 255,
        "0 to 255": (soft * 255).to(torch.uint8),
    }[kind]
    cut = soft >= 0.5 if kind == "soft" else (soft * 255).to(torch.uint8) >= 128 if kind == "0 to 255" else hole
    truth, other = to_float(picture)[None], torch.rand(1, 3, 64, 64)
    functions = {
        "complete": lambda mask: ipf.complete(picture, mask, weights=generator),
        "complete_batch": lambda mask: complete_batch(generator, Batch(truth, mask[None])),
        "harmonic": lambda mask: harmonic(truth, mask[None]),
        "ring_mean": lambda mask: ring_mean(truth, mask[None]),
        "hole_metrics": lambda mask: hole_metrics(other, truth, mask[None])["l1"],
        "CompletionNetwork": lambda mask: CompletionNetwork(4).eval()(truth, mask[None]),
    }
    if kind == "0 to 255":
        functions.pop("CompletionNetwork")  # a graph looks at no values: 0.5 is half
    for name, function in functions.items():
        torch.manual_seed(0)
        expected = function(cut)
        torch.manual_seed(0)
        assert torch.equal(function(mask), expected), name
        if name != "CompletionNetwork":
            with pytest.raises(ValueError, match="mask: values between 0 and 1"):
                function(torch.full((1, 64, 64), torch.nan))


def test_a_large_hole_in_a_large_picture_stays_bounded(generator) -> None:
    picture = torch.zeros(3, 3000, 4000, dtype=torch.uint8)
    mask = box(3000, 4000, 10, 10, 3900, 2900)
    completed = ipf.complete(picture, mask, weights=generator)
    assert torch.equal(completed[:, ~mask[0]], picture[:, ~mask[0]])


def test_a_generator_of_the_callers_is_left_as_it_is(generator) -> None:
    generator.train()
    picture, mask = samples("heldout")[0], box(*samples("heldout")[0].shape[1:], 9, 9, 30, 30)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    ipf.complete(picture, mask, weights=generator)
    ipf.complete(picture, mask, weights=generator, device="cpu")
    assert generator.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())


def test_weights_that_are_no_numbers_make_no_picture(generator) -> None:
    with torch.no_grad():
        generator.conv1.weight[0, 0, 0, 0] = torch.nan
    picture = samples("heldout")[0]
    with pytest.raises(ValueError, match="weights.*NaN"):
        ipf.complete(picture, box(*picture.shape[1:], 60, 70, 90, 50), weights=generator)


def test_wrong_types_are_named(generator) -> None:
    picture, mask = torch.zeros(3, 70, 70, dtype=torch.uint8), torch.ones(1, 70, 70)
    for name, arguments in {
        "image.*ndarray": (picture.numpy(), mask, generator),
        "mask.*read_mask.*str": (picture, "mask.png", generator),
        "weights.*int": (picture, mask, 3),
    }.items():
        with pytest.raises(TypeError, match=name):
            ipf.complete(arguments[0], arguments[1], weights=arguments[2])
    with pytest.raises(ValueError, match="device.*'gpu'"):
        ipf.complete(picture, mask, weights=generator, device="gpu")


def test_wrong_shapes_are_named(generator) -> None:
    with pytest.raises(ValueError, match=r"image.*float32"):
        ipf.complete(torch.rand(3, 8, 8), torch.zeros(1, 8, 8), weights=generator)
    with pytest.raises(ValueError, match=r"mask.*\(1, 8, 8\).*\(1, 8, 9\)"):
        ipf.complete(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 9), weights=generator)


def test_weights_there_and_back(tmp_path, generator) -> None:
    save_network(tmp_path / "generator.safetensors", generator, {"filters": 4})
    for path in (tmp_path, tmp_path / "generator.safetensors"):
        loaded = load_network(path)
        assert not loaded.training
        for name, tensor in generator.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)


def test_bad_weights_are_named(tmp_path, generator) -> None:
    with pytest.raises(WeightsError, match="nothing.*no such file"):
        load_network(tmp_path / "nothing")
    whole = tmp_path / "generator.safetensors"
    save_network(whole, generator, {"filters": 4})
    data = whole.read_bytes()
    for part in range(0, len(data), max(1, len(data) // 64)):
        broken = tmp_path / "broken.safetensors"
        broken.write_bytes(data[:part])
        with pytest.raises(WeightsError, match="broken"):
            load_network(broken)
    (tmp_path / "text.safetensors").write_text("not weights at all, but long enough to look at")
    with pytest.raises(WeightsError, match="text.safetensors"):
        load_network(tmp_path / "text.safetensors")
    save_network(tmp_path / "other.safetensors", generator, {"filters": 5})
    with pytest.raises(WeightsError, match="conv1.weight.*shape"):
        load_network(tmp_path / "other.safetensors")
    save_network(tmp_path / "critic.safetensors", WassersteinCritic(4), {"filters": 4, "variant": "nonsense"})
    with pytest.raises(WeightsError, match="arguments.*variant"):
        load_network(tmp_path / "critic.safetensors")
    save_network(tmp_path / "huge.safetensors", generator, {"filters": 10**6})
    with pytest.raises(WeightsError, match="huge.*shape"):  # 128 TB, not one of which is asked for
        load_network(tmp_path / "huge.safetensors")
    save_network(tmp_path / "plain.safetensors", torch.nn.Linear(1, 1), {})
    with pytest.raises(WeightsError, match="'Linear'"):
        load_network(tmp_path / "plain.safetensors")


def test_a_changed_bit_is_noticed_wherever_it_matters(tmp_path) -> None:
    network = UNetGenerator(1)
    path = tmp_path / "generator.safetensors"
    save_network(path, network, {"filters": 1, "prefill": "zero"})
    whole, draws = path.read_bytes(), random.Random(0)
    header = int.from_bytes(whole[:8], "little")
    noticed = 0
    for place in [draws.randrange(len(whole)) for _ in range(200)] + [draws.randrange(8 + header) for _ in range(200)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draws.randrange(8)]) + whole[place + 1 :])
        try:
            loaded = load_network(path)
        except WeightsError:
            noticed += 1
        else:  # it was in what says nothing of the network: the version, the checksum's own name, white space
            assert 8 <= place < 8 + header and loaded.prefill == network.prefill
            for name, tensor in network.state_dict().items():
                assert torch.equal(loaded.state_dict()[name], tensor)
    assert noticed > 350


def test_a_failed_write_leaves_the_old_weights(tmp_path, generator, monkeypatch) -> None:
    path = tmp_path / "generator.safetensors"
    save_network(path, generator, {"filters": 4})
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space.*generator.safetensors"):
        save_network(path, UNetGenerator(4), {"filters": 4})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_complete_reads_a_file(tmp_path, generator) -> None:
    picture = samples("heldout")[0]
    write_png(tmp_path / "picture.png", picture)
    mask = box(*picture.shape[1:], 10, 10, 50, 50)
    assert torch.equal(
        ipf.complete(tmp_path / "picture.png", mask, weights=generator), ipf.complete(picture, mask, weights=generator)
    )
