"""What is known stays: outside of a hole a completed picture is the original, bit by bit, in tensors and in files."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from support import times
from torch import Tensor

import inpaint_fast as ipf
from inpaint_fast.cli import main as cli
from inpaint_fast.completion import complete_batch
from inpaint_fast.completion.weights import save_network
from inpaint_fast.data import Batch, free_form, read_image, to_float, write_png
from inpaint_fast.models import UNetGenerator

MASKS = times(60, 1000)


def mask_of(number: int, height: int, width: int) -> Tensor:
    """One of many kinds: none, one pixel, nearly all, strokes, noise, a box."""
    draws = random.Random(number)
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    kind = number % 6
    if kind == 1:
        mask[0, draws.randrange(height), draws.randrange(width)] = True
    elif kind == 2:
        mask[:] = True
        mask[0, draws.randrange(height), draws.randrange(width)] = False
    elif kind == 3:
        mask = free_form(height, width, torch.Generator().manual_seed(number))
        mask[0, 0, 0] = False
    elif kind == 4:
        mask = torch.rand(1, height, width, generator=torch.Generator().manual_seed(number)) < draws.random() * 0.99
    elif kind == 5:
        top, left = draws.randrange(height), draws.randrange(width)
        mask[0, top : top + draws.randrange(1, height), left : left + draws.randrange(1, width)] = True
    return mask


def test_in_tensors_and_files(tmp_path) -> None:
    torch.manual_seed(0)
    generator = UNetGenerator(2).eval()
    ways = [
        {"weights": generator},
        {"fill": "harmonic"},
        {"fill": "ring_mean"},
        {"weights": generator, "blend": "poisson"},
    ]
    for number in range(MASKS):
        height, width = random.Random(-number).choices(range(3, 71), k=2)
        picture = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        mask = mask_of(number, height, width)
        completed = ipf.complete(picture, mask, **ways[number % len(ways)])
        assert torch.equal(completed[:, ~mask[0]], picture[:, ~mask[0]]), number
        write_png(tmp_path / "completed.png", completed)
        assert torch.equal(read_image(tmp_path / "completed.png")[:, ~mask[0]], picture[:, ~mask[0]]), number


def test_in_floats() -> None:
    torch.manual_seed(0)
    generator = UNetGenerator(2).eval()
    images = torch.rand(MASKS, 3, 64, 64)
    masks = torch.stack([mask_of(number, 64, 64) for number in range(MASKS)])
    with torch.no_grad():
        completed = complete_batch(generator, Batch(images, masks))
    assert torch.equal(completed.masked_fill(masks, 0), images.masked_fill(masks, 0))


def test_from_the_shell_where_everything_is_hole_is_an_error_and_no_hole_is_the_picture(tmp_path, capsys) -> None:
    torch.manual_seed(0)
    save_network(tmp_path / "generator.safetensors", UNetGenerator(2), {"filters": 2})
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    for name, level in (("none", 0), ("all", 255)):
        Image.new("L", (50, 40), level).save(tmp_path / f"{name}_mask.png")
    mask = np.zeros((40, 50), np.uint8)
    mask[3:20, 4:9] = 255
    Image.fromarray(mask).save(tmp_path / "some_mask.png")
    codes = {}
    for name in ("none", "all", "some"):
        arguments = [str(tmp_path / "a.png"), "--mask", str(tmp_path / f"{name}_mask.png")]
        arguments += ["--weights", str(tmp_path / "generator.safetensors"), "--out", str(tmp_path / f"{name}.png")]
        codes[name] = cli.main(["complete", *arguments])
    assert codes["some"] == 0 and codes["all"] != 0
    assert not (tmp_path / "all.png").exists() and "mask" in capsys.readouterr().err
    completed = np.asarray(Image.open(tmp_path / "some.png"))
    assert (completed[mask == 0] == picture[mask == 0]).all() and (completed[mask != 0] != picture[mask != 0]).any()
    assert to_float(read_image(tmp_path / "some.png")).shape == (3, 40, 50)
