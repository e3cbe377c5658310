"""What a run in progress owns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from inpaint_fast.completion.weights import copy_networks
from inpaint_fast.data import Batch, PackedImages, captions_for
from inpaint_fast.data.batches import seed_of
from inpaint_fast.nn import accelerate
from inpaint_fast.training.iterations import Iterations
from inpaint_fast.training.joint_norm import join_norms
from inpaint_fast.training.processes import Processes
from inpaint_fast.training.recipe import Recipe, System


class Run:
    """Everything that a run in progress owns: its system, its place in the data, its held-out pictures.

    Args:
        recipe: the settings.
        processes: of the run; by default this one alone.

    Raises:
        ValueError, FileNotFoundError: the data, the device or what the recipe starts from is not there, or a batch
            cannot be shared out.
    """

    def __init__(self, recipe: Recipe, processes: Processes | None = None) -> None:
        self.recipe = recipe
        self.processes = processes or Processes()
        self.device = self.processes.device(recipe.device)
        self.images, self.heldout_images = recipe.open_images("train"), recipe.open_images("heldout")
        if isinstance(self.images, PackedImages):
            self.images.use(self.device)
        measured = self.heldout_images.spread(recipe.heldout_pictures)
        self.caption_encoder, captions, heldout_captions = recipe.caption_encoder(), None, None
        texts: list[list[list[str]]] = []
        if self.caption_encoder is not None:
            texts = [captions_for(images, recipe.data) for images in (self.images, measured)]
            captions, heldout_captions = map(self.caption_encoder, texts)
        self.data = _digest_of(self.images.fingerprint(), measured.fingerprint(), texts)
        self.batches = self.processes.share(recipe.batches(self.images, captions), recipe.batch_size)
        heldout = recipe.heldout(measured, heldout_captions)
        self.evaluation = recipe.evaluation(_to(heldout, self.device))
        with self._draws("build", 0):
            self.system: System = recipe.build()
        self.started_from = copy_networks(recipe.init, dict(self.system.named_children())) if recipe.init else []
        self.system.prepare(self.images)
        self.system.to(self.device)
        self.system.processes = self.processes
        if recipe.sync_norm and self.processes.count > 1:
            join_norms(self.system, self.processes)
        if self.accelerated:
            # PyTorch's overloads of Module.to have no memory format.
            self.system.to(memory_format=self.system.memory_format)  # pyright: ignore[reportCallIssue]
            accelerate(self.system, tune=recipe.tune)
        self.system.begin_average()
        self.iterate = Iterations(self.system, self.device, wanted=recipe.cuda_graph)
        self.steps_done = 0  # and the index of the next batch

    @property
    def accelerated(self) -> bool:
        """Whether the networks run by the fused operators: not measured on a GPU yet, so not there."""
        return self.recipe.accelerate and self.device.type == "cpu"

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step on the next batch; returns what was measured, still on the device. What of it is no number is not
        learned from: `system.guard`."""
        epoch = self.steps_done * self.recipe.batch_size // len(self.images)
        self.system.schedule(self.steps_done, epoch)
        with self._draws("step", self.steps_done):
            measured = self.iterate(batch)
        self.steps_done += 1
        return measured

    def evaluate(self) -> tuple[dict[str, float], Tensor]:
        """Metrics of the held-out pictures and a grid to look at; always with the same random draws."""
        with self._draws("evaluate", 0):
            return self.evaluation(self.system.complete)

    @contextmanager
    def _draws(self, purpose: str, index: int) -> Iterator[None]:
        """Inside, torch's default generators are seeded from the run's seed and this place; then the caller's go on."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.recipe.seed, purpose, index))
            yield

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on. No state of a random generator is among it: a batch is made of its index, and what a
        step draws, too, comes of the run's seed and the step's index."""
        return {
            "steps_done": self.steps_done,
            "system": self.system.training_state(),
            "guard": self.system.guard.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.iterate.forget()  # graphs of the tensors that there were
        self.system.load_training_state(state["system"])
        self.system.guard.load_state_dict(state["guard"])
        self.steps_done = state["steps_done"]


def _digest_of(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _to(batch: Batch, device: torch.device) -> Batch:
    return batch if device.type == "cpu" else batch.map(lambda part: part.to(device, non_blocking=True))
