"""What the marks `pairs` and `once_a_backend` leave for `make test`; all else is `long`."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from quick import covering, leave_out

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("sizes", [(1,), (4,), (2, 3), (6, 2, 2), (4, 6, 6, 2, 2), (3, 3, 3, 3)], ids=str)
def test_every_two_values_meet_in_few_rows(sizes: tuple[int, ...]) -> None:
    rows = list(product(*map(range, sizes)))
    taken = [rows[place] for place in covering(rows)]
    for one, other in combinations(range(len(sizes)), 2):
        assert {(row[one], row[other]) for row in taken} == set(product(range(sizes[one]), range(sizes[other])))
    assert {row[0] for row in taken} == set(range(sizes[0]))
    largest = sorted(sizes)[-2:]
    assert len(taken) <= 1.5 * largest[0] * largest[-1] if len(sizes) > 1 else len(taken) == sizes[0]


def test_what_is_not_there_is_not_asked_for() -> None:
    assert covering([(0, 0), (1, 1)]) == [0, 1]
    assert covering([]) == []


TESTS = """
import pytest

@pytest.mark.pairs("a", "b", "c")
@pytest.mark.parametrize("a", [0, 1])
@pytest.mark.parametrize("b", [0, 1])
@pytest.mark.parametrize("c", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("other", "xy")
def test_some(a, b, c, other):
    pass

@pytest.mark.pairs
@pytest.mark.parametrize("a", [0, 1])
@pytest.mark.parametrize("b", [0, 1])
@pytest.mark.parametrize("c", [0, 1])
def test_all(a, b, c):
    pass
"""


def names(pytester: pytest.Pytester, tests: str = TESTS) -> list[str]:
    """Of the tests that are left for `make test`."""
    items = pytester.getitems(tests)
    leave_out(items)
    return [item.name for item in items if not item.get_closest_marker("long")]


def test_the_rest_is_long(pytester: pytest.Pytester) -> None:
    left = names(pytester)
    some = [name for name in left if name.startswith("test_some")]
    assert sorted(some) == sorted(f"test_some[{other}-0-{b}-{a}]" for other in "xy" for b in (0, 1) for a in (0, 1))
    every = [tuple(map(int, name[9:-1].split("-"))) for name in left if name.startswith("test_all")]
    assert len(every) == 4 and all(len({(row[i], row[j]) for row in every}) == 4 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_name_that_is_no_parameter_is_an_error(pytester: pytest.Pytester) -> None:
    with pytest.raises(pytest.UsageError, match="test_some.*: pairs of nothing, which it does not take"):
        names(pytester, TESTS.replace('"a", "b", "c")', '"a", "nothing")'))


BACKENDS = """
import pytest
from conftest import Implementation

@pytest.mark.once_a_backend
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("implementation", [
    Implementation("reference"), Implementation("cpp", capability="baseline"), Implementation("cpp", capability="avx2"),
], ids=str)
def test_it(implementation, size):
    pass
"""


def test_of_instruction_sets_the_best_is_left(pytester: pytest.Pytester) -> None:
    assert names(pytester, BACKENDS) == [
        f"test_it[{each}-{size}]" for each in ("reference", "cpp-avx2") for size in (1, 2)
    ]


PRODUCT = """
import pytest
from conftest import Implementation

@pytest.mark.pairs("a", "b", "c")
@pytest.mark.parametrize("a", [0, 1])
@pytest.mark.parametrize("b", [0, 1])
@pytest.mark.parametrize("c", [0, 1])
@pytest.mark.parametrize("implementation", [Implementation("cpp"), Implementation("triton")], ids=str)
def test_it(implementation, a, b, c):
    pass
"""


def test_all_but_the_interpreter_run_the_whole_product(pytester: pytest.Pytester) -> None:
    left = names(pytester, PRODUCT)
    assert sum("cpp" in name for name in left) == 8 and sum("triton" in name for name in left) == 4
