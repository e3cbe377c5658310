"""The processor: its name, its instructions and its caches, as the system tells them."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import NamedTuple

CPUS = Path("/sys/devices/system/cpu")
INFO = Path("/proc/cpuinfo")


def name() -> str:
    """As its maker calls it, such as "AMD EPYC 9R14"; where the system does not tell, its kind."""
    return _told("model name") or platform.processor() or platform.machine()


def instructions() -> frozenset[str]:
    """Sets of instructions as Linux names them, such as "avx512_bf16"; none where it does not tell, or on others than
    x86."""
    return frozenset(_told("flags").split())


def _told(key: str) -> str:
    """What Linux says of the first processor in /proc/cpuinfo, whose lines are "key : value"; "" where it does not."""
    try:
        with INFO.open(encoding="utf-8") as lines:  # no more of them than it takes: a large machine has thousands
            return next((value.strip() for name, _, value in (line.partition(":") for line in lines)
                         if name.strip() == key), "")  # fmt: skip
    except (OSError, ValueError):  # a container may hide what it likes
        return ""


class Caches(NamedTuple):
    """Sizes in bytes.

    Attributes:
        l2: the L2 cache of a core.
        l3: the L3 cache, which cores share.
        cores: how many do, as far as this machine sees them.
        told: by the system; otherwise the sizes are assumed.
    """

    l2: int = 1 << 20
    l3: int = 32 << 20
    cores: int = 2
    told: bool = False


def caches(cpus: Path = CPUS) -> Caches:
    """Those of the first processor, by its folder in Linux's /sys."""
    found = {}
    for index in (cpus / "cpu0" / "cache").glob("index*"):
        try:
            kind, level, size, shared = (
                (index / file).read_text().strip() for file in ("type", "level", "size", "shared_cpu_list")
            )
            if kind != "Instruction":
                found[int(level)] = int(size.removesuffix("K")) << 10, sum(map(_count, shared.split(",")))
        except (OSError, ValueError):  # a container may hide what it likes
            continue
    if not {2, 3} <= found.keys():
        return Caches()
    (l2, of_core), (l3, of_cores) = found[2], found[3]
    return Caches(l2, l3, max(of_cores // max(of_core, 1), 1), told=True) if min(l2, l3) > 0 else Caches()


def _count(processors: str) -> int:
    """Of "3" or "0-7"."""
    first, _, last = processors.partition("-")
    return int(last or first) - int(first) + 1
