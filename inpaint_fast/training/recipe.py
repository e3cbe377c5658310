"""What a recipe is: the settings of a run as data, and the system of networks that they build."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn
from typeguard import TypeCheckError, check_type

from inpaint_fast.completion import complete_batch
from inpaint_fast.data import (
    Batch,
    Batches,
    CaptionEncoder,
    ContextBatch,
    Digits,
    ImageFolder,
    Indexed,
    PackedImages,
    heldout_crops,
    open_images,
)
from inpaint_fast.training.average import Average
from inpaint_fast.training.evaluation import Evaluation
from inpaint_fast.training.guard import Guard
from inpaint_fast.training.parts import part_count, parts_of
from inpaint_fast.training.precision import Precision
from inpaint_fast.training.processes import Processes
from inpaint_fast.training.rates import rate_factor

NOT_NEGATIVE = ("lr", "lr_decay", "_weight", "alpha", "clip_penalty")
"""Ends of the names of settings that are no less than 0."""
TIMES = ("seconds", "checkpoint_minutes")
"""Settings that may be infinite."""
MOST_PICTURES = 1 << 16
"""In a batch, and held-out crops from a picture: more is a slip, for which no machine's memory is enough."""


@dataclass
class Recipe(ABC):
    """Settings that every recipe has, and what a run asks of it: pictures, captions, batches, held-out crops, how they
    are measured, and the `System`. A recipe adds settings, answers otherwise where it must, and builds its system."""

    name: ClassVar[str]
    """What the command line calls it."""
    source: ClassVar[str] = ""
    """Whose system it is: author, work, year."""
    as_published: ClassVar[dict[str, object]] = {}
    """Settings whose defaults are not those of the source: what it had."""
    size: ClassVar[int] = 64
    """Side of the training pictures, in pixels."""
    mask: ClassVar[str] = "center"
    """Where the holes are (`inpaint_fast.data.sampler`)."""
    free: ClassVar[frozenset[str]] = frozenset(
        {
            "data",
            "patience",
            "steps",
            "seconds",
            "evaluate_every",
            "checkpoint_every",
            "checkpoint_minutes",
            "keep",
            "max_skipped",
            "device",
            "cuda_graph",
        }
    )
    """Settings that may change when a run goes on: what was learned until then does not depend on them. The pictures
    may have moved; that they are the same is seen."""

    data: str = "samples"
    """A folder of pictures (searched recursively; train/ and heldout/ inside it are used), a file that `inpaint-fast
    pack` made of one, or "samples", the photographs that come with the package."""
    steps: int = 20_000
    """Generator steps to train for."""
    seconds: float | None = None
    """Stop after so many seconds of training, whichever comes first."""
    batch_size: int = 32
    """Pictures in a batch."""
    micro_batch: int | None = None
    """At most so many pictures go through the networks at a time, and a batch's gradients are the mean over such parts;
    batch normalisation sees one part. Critic and generator take as many steps on a batch as ever; a forward pass that
    they would share is made for each of the two, since the graphs of all parts would have to be kept. None: the whole
    batch at once."""
    crop: tuple[int, int] = (64, 320)
    """Smallest and largest side, in pixels, of the random square crops that are scaled to the training size."""
    flip: bool = True
    """Mirror half of the crops."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How every learning rate falls over `steps`, beside what else the recipe does to it; a run that `seconds` end is
    then on its way."""
    lr_end: float = 0.0
    """Where "cosine" and "linear" end, as a fraction of the learning rate."""
    warmup: int = 0
    """Over so many first steps every learning rate rises in equal parts to its value."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Of the networks' passes in training: "bf16" and "fp16" run them under autocast, "fp16" with its losses scaled and
    updates skipped where that overflows. Weights, losses, evaluations and what is saved are float32 in each."""
    sync_norm: bool = False
    """In several processes (torchrun), batch normalisation sees the rows of all of them, not of its own alone."""
    ema: float | None = None
    """Decay, such as 0.999, of an average of the generator's weights over its updates: what is measured, shown and
    saved as generator.safetensors. The weights that are trained on are generator_raw.safetensors beside the others."""
    evaluate_every: int = 250
    """Steps between evaluations on held-out pictures (metrics, sample pictures)."""
    checkpoint_every: int | None = None
    """Steps between checkpoints, from which --resume goes on; by default one with every evaluation. An evaluation with
    the least held-out error so far makes one, too."""
    checkpoint_minutes: float | None = 10.0
    """A checkpoint besides where the last one is so many minutes old; None: never for that reason."""
    max_skipped: int = 5
    """After so many skipped steps in a row (a loss, a gradient or a batch was no number) the run goes back to its last
    checkpoint; the second time it stops."""
    keep: int = 2
    """So many checkpoints are kept, the newest; and the one with the least held-out error (checkpoints/best.json)."""
    heldout_crops: int = 16
    """Held-out crops from each held-out picture."""
    heldout_pictures: int = 64
    """At most so many held-out pictures, spread evenly over all of them, are measured on."""
    patience: int | None = None
    """Stop after so many evaluations in a row, of the recipe's last phase, without a smaller held-out error: l2 in the
    hole; of generated pictures the distance of sharpness and diversity from those of real ones."""
    seed: int = 0
    """Of everything random in the run."""
    init: str | None = None
    """Start from the networks of a run (its folder; another folder of weights; one safetensors file): all that are of
    the same name and class. Optimizers start anew."""
    device: str = "auto"
    """Where to train: "auto" (the first GPU if there is one), "cpu", "cuda", "cuda:1"."""
    cuda_graph: bool = True
    """On a GPU, capture a step (all of an iteration) as one CUDA graph after the first few, again when the batch's
    shapes or the phase change, and replay it: the same steps without Python between them. A step that cannot be
    captured runs as it is, and the run says why."""
    accelerate: bool = True
    """On a CPU, run the networks by the fused operators (`inpaint_fast.accelerate`), in the memory format that the
    system's convolutions like best: the same mathematics in less time, other roundings."""
    tune: bool = False
    """With accelerate, time in the first steps whether the fused operators or PyTorch's are faster on this machine, for
    each layer, and keep what is; some 0.2 s a layer, and two runs of one seed then differ by rounding."""

    def __post_init__(self) -> None:
        self._expect_types()
        self.expect_at_least(steps=0, batch_size=1, evaluate_every=1, heldout_crops=1, heldout_pictures=1)
        self.expect_at_least(checkpoint_every=1, keep=1, max_skipped=1, micro_batch=1, warmup=0, patience=1)
        self._expect_ranges()
        if not 0 <= self.lr_end <= 1:
            raise ValueError(f"lr_end: a fraction between 0 and 1 is expected, got {self.lr_end}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema: a decay between 0 and 1, both excluded, is expected, got {self.ema}")
        for name in TIMES:
            if (value := getattr(self, name)) is not None and not value >= 0:
                raise ValueError(f"{name}: a time of at least 0 is expected, got {value}")

    def _expect_types(self) -> None:
        """Make plain Python of NumPy's numbers, lists and paths; raise TypeError where a setting is of another type."""
        recipe = next(cls for cls in type(self).__mro__ if "name" in vars(cls))
        hints = get_type_hints(recipe)
        for field in fields(recipe):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                value = value.item()
            elif isinstance(value, list):
                value = tuple(value)
            elif isinstance(value, os.PathLike):
                value = os.fspath(value)
            hint = hints[field.name]
            if get_origin(hint) is Literal and value not in get_args(hint):
                words = ", ".join(map(str, get_args(hint)))
                raise ValueError(f"{field.name}: one of {words} is expected, got {value!r}")
            try:
                check_type(value, hint)
            except TypeCheckError as error:
                raise TypeError(f"{field.name}: {value!r}: {error}") from None
            setattr(self, field.name, value)

    def _expect_ranges(self) -> None:
        """Raise ValueError where a number cannot be what its setting's name says."""
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if not all(map(math.isfinite, _floats(value))) and name not in TIMES:
                raise ValueError(f"{name}: a finite number is expected, got {value}")
            if name.endswith("betas") and not all(0 <= beta < 1 for beta in value):
                raise ValueError(f"{name}: two numbers from 0 to 1, 1 excluded, are expected, got {value}")
            if name.endswith(NOT_NEGATIVE) and value is not None and value < 0:
                raise ValueError(f"{name}: a number of at least 0 is expected, got {value}")
            if name in ("batch_size", "heldout_crops") and value > MOST_PICTURES:
                raise ValueError(f"{name}: at most {MOST_PICTURES:,} pictures are expected, got {value:,}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed: a whole number of 64 bits is expected, got {self.seed}")

    def expect_at_least(self, **leasts: int) -> None:
        """Raise ValueError where one of these settings is set, and smaller."""
        for name, least in leasts.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name}: at least {least} is expected, got {value}")

    def rate_factor(self, step: int) -> float:
        """What `lr_schedule` and `warmup` make of the learning rates after so many steps."""
        return rate_factor(self.lr_schedule, step, self.steps, warmup=self.warmup, end=self.lr_end)

    @property
    def milestones(self) -> Sequence[int]:
        """Steps after which the run looks at held-out pictures besides every `evaluate_every`: the ends of phases."""
        return ()

    def open_images(self, split: str) -> ImageFolder | PackedImages | Digits:
        """The pictures of a split, "train" or "heldout"."""
        return open_images(self.data, split)

    def caption_encoder(self) -> CaptionEncoder | None:
        """What turns the data's captions into tensors; None: the system reads no captions."""
        return None

    def batches(self, images: Sequence[Tensor], captions: Tensor | None = None) -> Indexed:
        """The training batches made of these pictures and their encoded captions."""
        return Batches(
            images, size=self.size, crop=self.crop, mask=self.mask, batch_size=self.batch_size, flip=self.flip,
            seed=self.seed, captions=captions,
        )  # fmt: skip

    def heldout(self, images: Sequence[Tensor], captions: Tensor | None = None) -> Batch:
        """The crops of these held-out pictures, with their holes and encoded captions, to measure on."""
        return heldout_crops(
            images, per_image=self.heldout_crops, size=self.size, crop=self.crop, mask=self.mask, captions=captions
        )

    def evaluation(self, heldout: Batch) -> Evaluation:
        """How the system's pictures are measured and shown."""
        return Evaluation(heldout)

    @abstractmethod
    def build(self) -> System:
        """The networks and optimizers of this recipe, on the CPU, initialised from torch's global generator."""


class System(nn.Module, ABC):
    """The networks and optimizers of one training system, and its step: all that a run learns.

    A system builds itself of its recipe: `add_network` for each network, `generator` first, then `optimizers`. The
    step is a function of this state and a batch: no file, no printing, and nothing that makes a GPU wait (metrics stay
    tensors). Its random draws come from torch's default generator, which the run seeds for each step from its own seed
    and the step's index. Networks are submodules, named as their weight files are.
    """

    generator: nn.Module
    """What makes the pictures."""
    optimizers: dict[str, torch.optim.Optimizer]
    arguments: dict[str, dict[str, object]]
    """Network name -> what its constructor was given; written into its weight file."""
    notes: Sequence[str] = ()
    """What a user should know before the run, a sentence each; printed at its start."""
    lr_decay: float = 1.0
    """Factor of every learning rate at the start of each epoch, the first included."""
    memory_format: torch.memory_format = torch.channels_last
    """Of the networks where they run by the fused operators."""
    phase: Hashable = None
    """What decides, besides a batch's shapes, which operations a step is made of: a graph holds those of one phase."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.optimizers, self.arguments = {}, {}
        self.precision = Precision(recipe.precision)
        self.processes = Processes()
        self.guard = Guard()
        self.average: Average | None = None  # of the generator, if the recipe has one

    def add_network(self, name: str, network: type[nn.Module], **arguments: object) -> None:
        """Build a network from these arguments, which are kept, and make it the system's of that name."""
        setattr(self, name, network(**arguments))
        self.arguments[name] = arguments

    def optimizer_each(
        self, optimizer: Callable[..., torch.optim.Optimizer], **settings: object
    ) -> dict[str, torch.optim.Optimizer]:
        """For each network an optimizer of its own, with the same settings."""
        return {name: optimizer(network.parameters(), **settings) for name, network in self.named_children()}

    def prepare(self, images: Sequence[Tensor]) -> None:  # noqa: B027  (a hook: most systems need none)
        """Look at the training pictures, once, before the first step: for statistics that a network needs."""

    def schedule(self, step: int, epoch: int) -> None:
        """Set what depends on the place in the run alone; called before each step with how many came before it."""
        for name, optimizer in self.optimizers.items():
            factor = self.rate(name, step, epoch)
            for group in optimizer.param_groups:
                group["lr"] = set_number(group["lr"], group.setdefault("initial_lr", group["lr"]) * factor)

    def rate(self, optimizer: str, step: int, epoch: int) -> float:
        """The factor of an optimizer's learning rates in a step."""
        return self.recipe.rate_factor(step) * self.lr_decay ** (epoch + 1)

    def move_numbers(self, device: torch.device) -> None:
        """Keep the numbers that `schedule` sets, and that a step reads, on the device: it reads them there anew in each
        replay of a graph. A step's other numbers stay what they were when it was captured."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
                group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float64, device=device)
                group["capturable"] = True

    @abstractmethod
    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch; returns what was measured on the way, scalars on the device: losses, whose names end in
        _loss, and the signals of `inpaint_fast.training.health`."""

    def parts(self, batch: Batch | ContextBatch, *wholes: Any) -> list[tuple[Any, ...]]:
        """The batch, and other tensors or tuples of its rows, in parts of at most `micro_batch`: for each its share of
        the batch, and its rows."""
        return list(parts_of(part_count(len(batch.image), self.recipe.micro_batch), batch, *wholes))

    def through(self, network: nn.Module, *inputs: Tensor, **options: Any) -> Any:
        """One pass of a network in training, in the recipe's precision; what it gives is float32."""
        self.precision.keep_statistics(self)
        with self.processes.apart(inputs[0].device):
            return self.precision.through(network, *inputs, **options)

    def backward(self, *losses: Tensor, gradients: Sequence[Tensor] | None = None) -> None:
        """Add the gradients of these losses, scalars, to the parameters'; of other tensors with these for their own."""
        scaled = self.precision.scaled
        if gradients is None:
            self.guard.observe(*losses)
            torch.autograd.backward([scaled(loss) for loss in losses])
        else:
            self.guard.observe(*losses, *(() if self.precision.scales else gradients))
            torch.autograd.backward(losses, [scaled(gradient) for gradient in gradients])

    def gradient(self, loss: Tensor, at: Tensor) -> Tensor:
        """The gradient of a loss, a scalar, at a tensor; those of the parameters stay as they are."""
        (gradient,) = torch.autograd.grad(self.precision.scaled(loss), at)
        return self.precision.unscaled(gradient)

    def update(self, optimizer: str) -> None:
        """The step of one of the optimizers, by the gradients that there are, which are then used up; of several
        processes, by their mean. No step where one of them, a loss or the batch is no number
        (`inpaint_fast.training.guard`), or where the scaling of float16's losses was too much (`precision`)."""
        chosen = self.optimizers[optimizer]
        if self.processes.count > 1:
            self._average_over_processes(chosen)
        scales = self.precision.scales
        skipped = self.precision.step(optimizer, chosen, self.guard) if scales else self.guard.step(chosen)
        self.optimizers[optimizer].zero_grad(set_to_none=True)
        if self.average is not None and self._trains_generator(optimizer):
            self.average.move(self.generator, skipped)

    def begin_average(self) -> None:
        """Start the average of the generator's weights, if the recipe has one: before the first pass, which may have to
        be undone."""
        if self.recipe.ema is not None:
            self.average = Average(self.generator, self.recipe.ema)

    def _average_over_processes(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the optimizer's gradients, the running statistics and the guard's mind those of all processes."""
        params = [param for group in optimizer.param_groups for param in group["params"]]
        statistics = [buffer.data for buffer in self.buffers() if buffer.is_floating_point()]
        with self.guard.shared() as bad:
            self.processes.average([param.grad for param in params if param.grad is not None] + statistics + bad)

    def _trains_generator(self, optimizer: str) -> bool:
        """Whether this optimizer has parameters of the generator."""
        generators = {id(param) for param in self.generator.parameters()}
        groups = self.optimizers[optimizer].param_groups
        return any(id(param) in generators for group in groups for param in group["params"])

    @property
    def finished_generator(self) -> nn.Module:
        """The generator to use: the average, where there is one."""
        return self.generator if self.average is None else self.average.network

    def complete(self, batch: Batch) -> Tensor:
        """The batch's pictures with their holes filled, (N, 3, H, W) in [0, 1]; known pixels as they were. Where the
        hole is everything these are new pictures."""
        return complete_batch(self.finished_generator, batch)

    def networks(self) -> dict[str, tuple[nn.Module, dict[str, object]]]:
        """Name of a weight file -> its network, and what its constructor was given. `generator` is the one to use; the
        trained one is `generator_raw` where that is an average."""
        networks = {name: (network, self.arguments[name]) for name, network in self.named_children()}
        if self.average is not None:
            networks["generator_raw"] = networks["generator"]
            networks["generator"] = self.average.network, self.arguments["generator"]
        return networks

    def counts(self) -> dict[str, int]:
        """What was counted since the start, for a row of metrics."""
        return self.precision.counts()

    def learned(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of all that was learned: parameters, buffers (running statistics), the generator's average,
        the optimizers' states."""
        yield from self.state_dict().items()
        if self.average is not None:
            yield from self.average.network.state_dict(prefix="average.").items()
        for network, optimizer in self.optimizers.items():
            params = [param for group in optimizer.param_groups for param in group["params"]]
            for i, param in enumerate(params):
                for name, value in optimizer.state.get(param, {}).items():
                    if isinstance(value, Tensor):
                        yield f"{name} of the {network}'s parameter {i}", value

    def training_state(self) -> dict[str, Any]:
        """Networks, optimizers and what goes with them, all that `load_training_state` needs to go on; a checkpoint
        keeps it, whatever tensors, numbers, strings, lists and dictionaries it is made of. Gradients are those that a
        step leaves to the next one."""
        return {
            "networks": self.state_dict(),
            "optimizers": {name: _plain(optimizer.state_dict()) for name, optimizer in self.optimizers.items()},
            "gradients": {name: p.grad for name, p in self.named_parameters() if p.grad is not None},
            "precision": self.precision.state_dict(),
            "average": self.average and self.average.state_dict(),
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Go on where `training_state` was taken."""
        self.load_state_dict(state["networks"])
        for name, optimizer in self.optimizers.items():
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = set_number(rate, group["lr"])
                if isinstance(rate, Tensor):
                    group["capturable"] = True
        for name, parameter in self.named_parameters():
            gradient = state["gradients"].get(name)
            parameter.grad = None if gradient is None else torch.empty_like(parameter).copy_(gradient)
        self.precision.load_state_dict(state["precision"], next(self.parameters()).device)
        self.average = None
        if state["average"] is not None:
            assert self.recipe.ema is not None  # a run goes on with the decay that it began with
            self.average = Average(self.generator, self.recipe.ema)
            self.average.load_state_dict(state["average"])


def _floats(value: object) -> list[float]:
    """Those of a setting, which may be several numbers."""
    return [each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, float)]


def set_number(place: float | Tensor, value: float) -> float | Tensor:
    """What holds the number from now on: the same tensor, filled with it, where one holds it; otherwise itself."""
    return place.fill_(value) if isinstance(place, Tensor) else value


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state_dict with learning rates as numbers, wherever they lie during the run."""
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}
