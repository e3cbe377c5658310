"""These maps are small: a second thread would only be waited for."""

from collections.abc import Iterator

import pytest
import torch

from inpaint_fast.nn.fuse import chain, modules


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def every_call_asks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps are so small here that PyTorch's own operators run: proofs are asked for their sake all the same."""
    if request.module.__name__.rpartition(".")[2] not in ("test_plain_chains", "test_facts"):
        monkeypatch.setattr(modules._Convolution, "_note", lambda *_: None)
        monkeypatch.setattr(chain.Chain, "_note", lambda *_: None)
