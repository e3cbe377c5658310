"""What `make test` leaves to `make test-long`, by two marks.

`pairs`: of a product of parameters it runs few combinations, in which every two values meet.

    @pytest.mark.pairs("activation", "order")                # every two of their values, for each value of the others
    @pytest.mark.pairs                                       # every two values of all parameters

A fault that two values cause together is found all the same; one that it takes three for is found by `make test-long`,
which runs the whole product. So is that of every implementation (conftest.py) but Triton's interpreter by `make test`:
they take a hundredth of its time.

`once_a_backend`: for what no instruction set has to do with, each backend runs by one, the processor's best.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import pytest


def leave_out(items: Sequence[pytest.Item]) -> None:
    """Mark as `long` what the marks of its test have no need of.

    Raises:
        pytest.UsageError: a mark names what is no parameter of its test.
    """
    _leave_out_all_but_pairs(items)
    best: dict[tuple, pytest.Item] = {}
    for item in items:
        if item.get_closest_marker("once_a_backend"):
            values = {name: id(value) for name, value in item.callspec.params.items()}
            backend = item.callspec.params["implementation"].backend
            key = _name_of(item), *sorted((values | {"implementation": backend}).items())
            if key in best:  # conftest.implementations() has instruction sets in rising order
                best[key].add_marker("long")
            best[key] = item


def covering(rows: Sequence[tuple[int, ...]]) -> list[int]:
    """The places of rows, few of all, that hold every pair of values in two columns that any row holds.

    Each that is taken holds the most pairs which none before it held, the first of these: the same ones each time.
    """
    pairs = [set(combinations(enumerate(row), min(2, len(row)))) for row in rows]
    missing, taken = set().union(*pairs), []
    while missing:
        most = max(range(len(rows)), key=lambda place: len(missing & pairs[place]))
        taken.append(most)
        missing -= pairs[most]
    return sorted(taken)


def _leave_out_all_but_pairs(items: Sequence[pytest.Item]) -> None:
    products: dict[tuple, dict[pytest.Item, tuple[int, ...]]] = defaultdict(dict)
    for item in items:
        mark = item.get_closest_marker("pairs")
        if mark is None or item.get_closest_marker("long") or not _is_slow(item):
            continue
        values = {name: id(value) for name, value in item.callspec.params.items()}  # the same object in each product
        if unknown := set(mark.args) - values.keys():
            raise pytest.UsageError(f"{item.nodeid}: pairs of {', '.join(sorted(unknown))}, which it does not take")
        names = mark.args or tuple(values)
        others = tuple((name, value) for name, value in values.items() if name not in names)
        products[_name_of(item), others][item] = tuple(values[name] for name in names)
    for product in products.values():
        taken = set(covering(list(product.values())))
        for place, item in enumerate(product):
            if place not in taken:
                item.add_marker("long")


def _is_slow(item: pytest.Item) -> bool:
    return getattr(item.callspec.params.get("implementation"), "interpreted", True)


def _name_of(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]
