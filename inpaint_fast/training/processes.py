"""One run in several processes, as torchrun starts them: each makes and takes its own rows of every batch.

All of them hold the same networks and optimizers at all times: gradients and running statistics are averaged before
each update. The first process has the run's folder, measures, prints and decides; the others `follow` it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from signal import Signals
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from inpaint_fast._devices import device_of
from inpaint_fast.data import Batch, Indexed
from inpaint_fast.data.batches import seed_of

LONGEST = timedelta(days=1)  # that one process may be measuring or saving while the others wait
STARTED_BY = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class ProcessLost(RuntimeError):
    """Another process of the run has ended; the message says which one noticed."""


class Said(NamedTuple):
    """What all processes of a run know before a step."""

    over: bool
    """The first process has written all that it will write."""
    signal: Signals | None
    """One of them has received it: no step is made any more."""
    back: bool = False
    """The first process has gone back to an earlier state, which it gives the others now (`of_first`)."""
    asked: bool = False
    """One of them was asked for a checkpoint."""


class Processes:
    """The processes of a run; by default this one alone.

    Args:
        rank: of this one, 0 for the first.
        count: of all.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self._apart: tuple[Any, ...] | None = None  # seed, and states of the generators where `apart` left them

    def device(self, name: str) -> torch.device:
        """Where this process trains: of several on a machine each has a GPU of its own.

        Raises:
            ValueError: there is no such device.
        """
        if self.count == 1:
            return device_of(name)
        if device_of(name).type == "cpu":
            return torch.device("cpu")
        if torch.device("cuda" if name == "auto" else name).index is not None:
            raise ValueError(f"device: 'auto', 'cpu' or 'cuda' is expected of several processes, got {name!r}")
        device = device_of(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
        torch.cuda.set_device(device)
        return device

    def share(self, batches: Indexed, batch_size: int) -> Indexed:
        """The same batches with the rows of this process alone.

        Raises:
            ValueError: not all processes can have the same number of rows.
        """
        if self.count == 1:
            return batches
        if batch_size % self.count:
            raise ValueError(f"batch_size: a multiple of the {self.count} processes is expected, got {batch_size}")
        return _Rows(batches, self._rows(batch_size // self.count))

    def own(self, draw: Callable[[int], Tensor], rows: int) -> Tensor:
        """Random rows of this process, those that they are in the whole batch: `draw` makes so many."""
        return draw(rows * self.count)[self._rows(rows)]

    @contextmanager
    def apart(self, device: torch.device) -> Iterator[None]:
        """Inside, the default generators of this process are unlike those of the others, which else are the same. They
        begin anew with each seed, and go on where they were left from one such place to the next."""
        if self.count == 1:
            yield
            return
        seed, gpus = torch.initial_seed(), [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            if self._apart is None or self._apart[0] != seed:
                torch.manual_seed(seed_of(seed, "process", self.rank))
            else:
                torch.set_rng_state(self._apart[1])
                for gpu in gpus:
                    torch.cuda.set_rng_state(self._apart[2], gpu)
            yield
            self._apart = seed, torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in gpus)

    @torch.no_grad()
    def average(self, tensors: list[Tensor]) -> None:
        """Give each of these the mean that it has over the processes: float32, on one device, as one message."""
        if self.count > 1 and tensors:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            self.sum(flat).div_(self.count)
            parts = flat.split([tensor.numel() for tensor in tensors])
            torch._foreach_copy_(tensors, [part.view(each.shape) for part, each in zip(parts, tensors, strict=True)])

    def mean(self, measured: dict[str, Tensor]) -> dict[str, Tensor]:
        """What was measured, as the mean over the processes."""
        if self.count == 1 or not measured:
            return measured
        return dict(zip(measured, self.sum(torch.stack(list(measured.values()))).div_(self.count), strict=True))

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor, which is now the sum over the processes."""
        with self._together():
            dist.all_reduce(tensor)
        return tensor

    def agree(
        self, *, over: bool = False, signal: Signals | None = None, back: bool = False, asked: bool = False
    ) -> Said:
        """Tell what this process knows, learn what all know. They all call it before each step, and wait for each
        other; the first one ends with `over`."""
        if self.count == 1:
            return Said(over, signal, back, asked)
        known = torch.tensor([over, signal or 0, back, asked])
        with self._together():
            dist.all_reduce(known, dist.ReduceOp.MAX)
        over, number, back, asked = known.tolist()
        return Said(bool(over), Signals(number) if number else None, bool(back), bool(asked))

    def of_first(self, value: Any) -> Any:
        """What the first process has here, in all of them: tensors (they arrive on the CPU), numbers, strings and
        dictionaries and lists of such."""
        if self.count == 1:
            return value
        written = io.BytesIO()
        if self.rank == 0:
            torch.save(value, written)
        data = torch.frombuffer(written.getbuffer(), dtype=torch.uint8) if self.rank == 0 else None
        size = torch.tensor(written.getbuffer().nbytes)
        with self._together():
            dist.broadcast(size, 0)
            data = torch.empty(int(size), dtype=torch.uint8) if data is None else data
            dist.broadcast(data, 0)
        if self.rank == 0:
            return value
        return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)

    def _rows(self, count: int) -> slice:
        return slice(self.rank * count, (self.rank + 1) * count)

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ProcessLost(
                f"process {self.rank} of {self.count}: another one has ended, and so does this one; why, the other says"
            ) from error


class _Rows:
    """Some rows of each batch."""

    def __init__(self, batches: Indexed, rows: slice) -> None:
        self.batches, self.kept = batches, rows

    def __getitem__(self, index: int) -> Batch:
        rows = getattr(self.batches, "rows", None)
        if rows is not None:  # the others are not even made
            return rows(index, self.kept)
        return self.batches[index].map(lambda part: part[self.kept])


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that this one was started with by torchrun, or by another program that sets what torchrun does;
    inside, they can be reached.

    Raises:
        ProcessLost: they could not be reached.
    """
    if dist.is_available() and dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
    elif not started_by_torchrun():
        yield Processes()
    else:
        processes = Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        with processes._together():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            store, rank, count = next(dist.rendezvous("env://"))
            store = dist.PrefixStore(f"start {restarts()}", store)  # it may hold the addresses of those that are lost
            dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=LONGEST)
        try:
            yield processes
        finally:
            dist.destroy_process_group()


def started_by_torchrun() -> bool:
    """Whether this process is one of several."""
    return all(name in os.environ for name in STARTED_BY) and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    """Whether this process is the one of its run that speaks."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


def restarts() -> int:
    """How often torchrun has started the run's processes anew, since one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
