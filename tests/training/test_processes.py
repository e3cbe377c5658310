"""One run in two processes: its gradients are those of one process, and it ends, fails and is stopped as one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from training.test_settings import stepped
from training.test_systems import small

from inpaint_fast.completion import load_network
from inpaint_fast.data import Batches, ContextBatches, samples
from inpaint_fast.training import RECIPES, ConvAutoencoderRecipe, Run, train
from inpaint_fast.training.joint_norm import join_norms
from inpaint_fast.training.processes import Processes, ProcessLost

SETTINGS = {
    "completion_steps": 0, "discriminator_steps": 0, "autoencoder_steps": 1, "batch_size": 6, "accelerate": False,
    "real_noise": (1.0, 1.0), "crop": (64, 100), "prefill": "zero",
}  # fmt: skip
CASES = [
    ("context_gan", False), ("latent_gan", False), ("mlp_gan", False), ("glcic_small", False),
    ("unet_wgan_caption", False), ("unet_wgan", True), ("glcic_small", True),
]  # fmt: skip
"""Recipes; the second time with norms in training mode, whose statistics are those of both processes' rows."""
DRAWING = {"mlp_gan", "unet_wgan_caption", "context_cnn_bow1", "context_cnn_lstm", "context_cnn_gru"} | {
    "context_cnn_caption_bias"
}
"""Whose networks draw in training mode, in each process by itself: dropout, which of a picture's captions is read."""
OTHERS = [(name, joint) for name in RECIPES for joint in (False, True) if (name, joint) not in CASES]
OTHERS = [(name, joint) for name, joint in OTHERS if not (joint and name in DRAWING)]
WHOLE = ConvAutoencoderRecipe(
    filters=2, batch_size=4, steps=5, heldout_crops=1, evaluate_every=2, ema=0.5, lr_schedule="linear", precision="fp16"
)
Stepped = tuple[list[Tensor], dict[str, Tensor]]


def two_steps(name: str, processes: Processes, *, joint: bool) -> Stepped:
    return stepped(Run(small(name, **SETTINGS, sync_norm=joint), processes), train=joint)


# ---- what runs in two processes ----


def meet(rank: int, folder: str) -> Processes:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    return Processes(rank, 2)


def others_in_process(rank: int, folder: str) -> None:
    processes = meet(rank, folder)
    steps = {case: two_steps(case[0], processes, joint=case[1]) for case in OTHERS}
    torch.save(steps, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def in_process(rank: int, folder: str) -> None:
    processes = meet(rank, folder)
    torch.save({case: two_steps(case[0], processes, joint=case[1]) for case in CASES}, f"{folder}/{rank}.pt")
    train(WHOLE, f"{folder}/run", progress=False)
    run = Run(replace(WHOLE, precision="float32"), processes)
    run.step(run.batches[0])
    before = {name: tensor.clone() for name, tensor in run.system.learned()}
    run.step(run.batches[1].map(lambda part: part * torch.nan) if rank == 1 else run.batches[1])
    assert run.system.guard.skipped == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.system.learned())
    with pytest.raises(ValueError, match="batch_size: a multiple of the 2 processes is expected, got 3"):
        Run(replace(WHOLE, batch_size=3), processes)
    with pytest.raises(ValueError, match="device: 'gpu'|device: 'auto'"):
        processes.device("gpu")
    assert processes.agree(asked=rank == 1).asked and not processes.agree().asked
    dist.barrier()
    if rank == 0:
        with pytest.raises(ProcessLost, match="process 0 of 2: another one has ended"):
            processes.agree()
        Path(folder, "lost").touch()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they found."""
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(in_process, (str(folder),), nprocs=2)
    return folder


def check(case: tuple[str, bool], folder: Path) -> None:
    gradients, losses = two_steps(case[0], Processes(), joint=case[1])
    for rank in (0, 1):
        found, others = torch.load(folder / f"{rank}.pt")[case]
        torch.testing.assert_close(found, gradients, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(others, losses, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_losses_are_those_of_one_process(case: tuple[str, bool], in_two: Path) -> None:
    check(case, in_two)


@pytest.mark.proves(
    "every recipe",
    equals="in two processes: the gradients and losses of one",
    dtypes="float64",
)
@pytest.mark.long
def test_gradients_and_losses_of_every_recipe_are_those_of_one_process(tmp_path: Path) -> None:
    mp.spawn(others_in_process, (str(tmp_path),), nprocs=2)
    for case in OTHERS:
        check(case, tmp_path)


def test_a_run_is_that_of_one_process(in_two: Path, tmp_path: Path) -> None:
    alone, together = train(WHOLE, tmp_path / "run", progress=False), in_two / "run"
    for kind in ("generator", "generator_raw"):
        wanted = load_network(alone, kind=kind).state_dict()
        for key, value in load_network(together, kind=kind).state_dict().items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-3, atol=1e-4)
    rows = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (alone, together)
    ]
    assert [row["step"] for row in rows[1]] == [0, 2, 4, 5]
    for ours, theirs in zip(*rows, strict=True):
        assert ours["psnr"] == pytest.approx(theirs["psnr"], abs=0.01) and ours.keys() == theirs.keys()
        assert ours["overflows"] == theirs["overflows"]


def test_a_process_that_has_ended_is_missed(in_two: Path) -> None:
    assert (in_two / "lost").exists()


# ---- in one process ----


def test_rows_of_a_batch_are_those_of_the_whole_and_no_other_is_read() -> None:
    class Counted(list):
        read = 0

        def __getitem__(self, index: int) -> Tensor:
            Counted.read += 1
            return super().__getitem__(index)

    pictures = Counted(samples())
    for batches in (
        Batches(pictures, batch_size=6, mask="free_form", captions=torch.arange(len(pictures))[:, None]),
        ContextBatches(pictures, batch_size=6, size=64, local=40, hole=(19, 38), seed=3),
        ContextBatches(pictures, batch_size=6, size=64, local=40, hole=(19, 38), seed=3, one_area=True),
        [Batches(pictures, batch_size=6)[index] for index in range(3)],
    ):
        whole, parts = batches[2], []
        for rank in range(3):
            Counted.read = 0
            parts.append(Processes(rank, 3).share(batches, 6)[2])
            assert Counted.read <= 2
        for part, all_rows in zip(zip(*parts, strict=True), whole, strict=True):
            assert all_rows is None or torch.equal(torch.cat(part), all_rows)


def test_processes_draw_alike_and_apart() -> None:
    together = []
    for rank in (0, 1):
        torch.manual_seed(1)
        processes = Processes(rank, 2)
        rows = processes.own(lambda count: torch.arange(count) + torch.randint(9, ()), 3)
        with processes.apart(torch.device("cpu")):
            first = torch.rand(4)
        same = torch.rand(4)
        with processes.apart(torch.device("cpu")):
            second = torch.rand(4)
        together.append((rows, first, second, same))
    (rows, *apart, same), (other_rows, *other_apart, other_same) = together
    assert torch.equal(other_rows, rows + 3) and torch.equal(same, other_same)
    assert len({each.tolist()[0] for each in (*apart, *other_apart, same)}) == 5


def test_joint_norms_of_one_process_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "sum", lambda _, tensor: tensor)
    plain = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(48, momentum=None, affine=False)).double()
    joint = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(48, momentum=None, affine=False)).double()
    join_norms(joint, Processes())
    assert joint.state_dict().keys() == plain.state_dict().keys()
    for _ in range(2):
        x = torch.randn(5, 3, 4, 4, dtype=torch.float64)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        for net, each in zip((plain, joint), inputs, strict=True):
            net(each).sin().sum().backward()
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    torch.testing.assert_close(joint.state_dict(), plain.state_dict())
    torch.testing.assert_close([p.grad for p in joint.parameters()], [p.grad for p in plain.parameters()])
    torch.testing.assert_close(joint.eval()(x), plain.eval()(x))
    with pytest.raises(ValueError, match="4D input"):
        joint[0].train()(x[0])


# ---- from the shell ----
