"""Files made to harm: a sentence with the file's name, at once, and without the memory that they ask for."""

from __future__ import annotations

import json
import pickle
import resource
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch

from inpaint_fast.completion import WeightsError, load_network
from inpaint_fast.completion.convert import from_public, read_state_dict, to_public
from inpaint_fast.completion.pickles import expect_tensors_alone
from inpaint_fast.completion.weights import save_network
from inpaint_fast.data import SentenceVectors, Vocabulary
from inpaint_fast.data.layouts import CAPTIONS_DICTIONARY, CAPTIONS_FILE, read_captions
from inpaint_fast.data.sentence_vectors import read_word_vectors
from inpaint_fast.models import CompletionNetwork

SPARE = 400 << 20


@contextmanager
def little_memory() -> Iterator[None]:
    """Inside, this process gets 400 MB more than it has, at most."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class Call:
    """A pickle that calls this where it is loaded."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple:
        return self.called


def big_memo() -> bytes:
    """An empty dictionary at place 2^31 - 1 of a memo, which C code allocates up to there."""
    return b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b"."


# ---- .pth ----


def saved(path: Path, content: object, **settings: bool) -> Path:
    torch.save(content, path, **settings)
    return path


def compressed(path: Path) -> Path:
    source = saved(path.with_suffix(".zip"), {"a": torch.zeros(1_000_000)})
    with zipfile.ZipFile(source) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for record in plain.infolist():
            small.writestr(record.filename, plain.read(record))
    return path


def overlapping(path: Path) -> Path:
    """Its directory names one record a thousand times."""
    source = saved(path.with_suffix(".zip"), {"a": torch.zeros(100_000)})
    with zipfile.ZipFile(source, "a") as records:
        largest = max(records.infolist(), key=lambda record: record.file_size)
        records.filelist += [largest] * 1000
        records._didModify = True
    source.rename(path)
    return path


def padded(path: Path) -> Path:
    """Six hundred thousand empty tuples before what is refused."""
    path.write_bytes(b"\x80\x02" + b")0" * 600_000 + b"c__builtin__\nbytearray\n.")
    return path


PTH = {
    "a bytearray of 40 GB": (lambda p: saved(p, {"a": Call(bytearray, 40 << 30)}), "code.*bytearray"),
    "the same, as before torch 1.6": (
        lambda p: saved(p, {"a": Call(bytearray, 40 << 30)}, _use_new_zipfile_serialization=False),
        "code.*bytearray",
    ),
    "a tensor by its class": (lambda p: saved(p, {"a": Call(torch.FloatTensor, 10 << 30)}), "code.*FloatTensor"),
    "a storage by its class": (lambda p: saved(p, {"a": Call(torch.UntypedStorage, 40 << 30)}), "code.*UntypedStorage"),
    "compressed": (compressed, "compressed"),
    "overlapping records": (overlapping, "overlap"),
    "an expanded view": (
        lambda p: saved(p, {"conv1.weight": torch.zeros(1).expand(10**6, 4, 5, 5), "conv17.weight": torch.zeros(1)}),
        "conv1.weight.*expanded view",
    ),
    "a long pickle": (padded, "more than 1,048,576 bytes"),
}


@pytest.mark.parametrize("what", PTH)
def test_weights_to_convert(what: str, tmp_path) -> None:
    make, words = PTH[what]
    path = make(tmp_path / "hostile.pth")
    with little_memory(), pytest.raises(WeightsError, match=rf"hostile\.pth: refused: .*{words}"):
        from_public(path, tmp_path / "out.safetensors", mean_pixel=(0.5, 0.5, 0.5))
    assert not (tmp_path / "out.safetensors").exists()


def test_shapes_of_a_network_that_no_memory_holds(tmp_path) -> None:
    """The width is read off the first tensor; nothing is built before the others are seen to fit."""
    tensors = {"conv1.weight": torch.zeros(200_000, 4, 5, 5, dtype=torch.float16), "conv17.weight": torch.zeros(1)}
    path = saved(tmp_path / "wide.pth", tensors)
    del tensors
    with little_memory(), pytest.raises(WeightsError, match=r"wide\.pth: lacks conv1\.bias"):
        from_public(path, tmp_path / "out.safetensors", mean_pixel=(0.5, 0.5, 0.5))


def test_honest_files_of_every_kind_pass(tmp_path) -> None:
    tensors = {
        "a": torch.rand(3, 2).mT, "b": torch.rand(2, dtype=torch.float64), "c": torch.tensor(3), "d": torch.empty(0, 4),
        "e": torch.nn.Parameter(torch.rand(2)), "f": torch.ones(2, dtype=torch.bool), "g": torch.rand(2).bfloat16(),
    }  # fmt: skip
    tensors["tied"] = tensors["b"]
    for zip_file in (True, False):
        path = saved(tmp_path / f"{zip_file}.pth", tensors, _use_new_zipfile_serialization=zip_file)
        assert all(torch.equal(value, tensors[name]) for name, value in read_state_dict(path).items())


def test_a_full_disk_names_the_file(tmp_path) -> None:
    source = tmp_path / "g.safetensors"
    save_network(source, CompletionNetwork(2), {"channels": 2})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"target\.pth"):
            to_public(source, tmp_path / "target.pth")
        with pytest.raises(OSError, match=r"target\.safetensors"):
            save_network(tmp_path / "target.safetensors", CompletionNetwork(2), {"channels": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["g.safetensors"]


def test_a_checkpoint_with_plain_values_is_looked_through(tmp_path) -> None:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    values = [
        1,
        0.5,
        "text",
        None,
        True,
        b"bytes",
        {1, 2},
        1j,
        (3,),
        torch.Size([2]),
        torch.device("cpu"),
        torch.bfloat16,
    ]
    content = {"net": network.state_dict(), "optimizer": optimizer.state_dict(), "values": values}
    for zip_file in (True, False):
        path = saved(tmp_path / f"{zip_file}.pth", content, _use_new_zipfile_serialization=zip_file)
        expect_tensors_alone(path)
        torch.load(path, weights_only=True)


# ---- safetensors ----


def header(path: Path, tensors: dict[str, object], arguments: str = '{"filters": 2}') -> Path:
    text = json.dumps({"__metadata__": {"network": "UNetGenerator", "arguments": arguments}, **tensors}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def test_a_header_of_300_000_tensors(tmp_path) -> None:
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = header(tmp_path / "many.safetensors", {"t": nothing})
    entry = path.read_bytes()[path.read_bytes().index(b'"t"') : -1]
    text = path.read_bytes()[8:-1] + b"".join(b"," + entry.replace(b"t", b"t%d" % i, 1) for i in range(300_000)) + b"}"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with little_memory(), pytest.raises(WeightsError, match=r"many\.safetensors.*header of at most 4,194,304 bytes"):
        load_network(path)


@pytest.mark.parametrize("arguments", ["[" * 100_000, "[1]", '{"filters": "2"}', '{"filters": 1e400}',
                                       '{"filters": 99999999999999999999}', '{"filters": -1}', "{", "NaN"])  # fmt: skip
def test_arguments_of_wrong_kinds(arguments: str, tmp_path) -> None:
    path = header(tmp_path / "odd.safetensors", {}, arguments)
    with (
        little_memory(),
        pytest.raises(WeightsError, match=r"odd\.safetensors: its arguments do not fit"),
    ):
        load_network(path)


# ---- captions ----

VOCABULARIES = [
    '{"length": 1000000000000, "words": []}', '{"length": true, "words": []}', '{"length": 2.5, "words": []}',
    '{"length": 5, "words": "abc"}', '{"length": 5, "words": [1, 2]}', '{"length": 5, "words": {"a": 1}}',
    '{"length": 5, "words": ["a", "a"]}', '{"words": [], "length": 0}', "[" * 200_000, '"text"', "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("text", VOCABULARIES, ids=range(len(VOCABULARIES)))
def test_vocabularies(text: str, tmp_path) -> None:
    (tmp_path / Vocabulary.file).write_bytes(text.encode(errors="surrogatepass"))
    with little_memory(), pytest.raises(ValueError, match=r"vocabulary\.json: a run's vocabulary"):
        Vocabulary.load(tmp_path)


def test_a_vocabulary_of_gigabytes(tmp_path) -> None:
    with open(tmp_path / Vocabulary.file, "wb") as file:
        file.truncate(4 << 30)
    with little_memory(), pytest.raises(ValueError, match=r"vocabulary\.json.*at most 16,777,216 bytes"):
        Vocabulary.load(tmp_path)


def test_sentence_vectors(tmp_path) -> None:
    good = {"a": 1e-3, "frequencies": {"dog": 0.5}, "words": ["dog", "cat"]}
    tensors = {"component": torch.zeros(3), "table": torch.ones(2, 3)}

    def load(content: object, **changed: torch.Tensor | None) -> SentenceVectors:
        both = {name: value for name, value in {**tensors, **changed}.items() if value is not None}
        metadata = {"sentence_vectors": content if isinstance(content, str) else json.dumps(content)}
        safetensors.torch.save_file(both, tmp_path / SentenceVectors.file, metadata)
        return SentenceVectors.load(tmp_path)

    assert load(good).width == 3 and load(good | {"words": None}, table=None).width == 3
    changes = [
        {"a": "x"}, {"a": 0}, {"frequencies": [1]}, {"frequencies": {"dog": "often"}}, {"words": None},
        {"frequencies": {"dog": float("nan")}}, {"words": ["dog"]}, {"words": [[], []]},
    ]  # fmt: skip
    for content in (*(good | change for change in changes), [], "[" * 100_000):
        with pytest.raises(ValueError, match=rf"{SentenceVectors.file}: a run's sentence vectors"):
            load(content)
    for changed in (
        {"component": torch.zeros(3, 1)}, {"component": torch.full((3,), torch.nan)}, {"table": torch.ones(2, 4)},
        {"table": torch.ones(2, 3, dtype=torch.int64)}, {"table": None}, {"table": torch.full((2, 3), torch.inf)},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{SentenceVectors.file}: a run's sentence vectors"):
            load(good, **changed)
    for text, words in (("a 1 inf 2\n", "line 1: finite"), ("a" * (3 << 20), "line 1: 3 numbers"), ("\n", "line 1")):
        (tmp_path / "v.txt").write_text(text)
        with pytest.raises(ValueError, match=rf"v\.txt: {words}"):
            read_word_vectors(tmp_path / "v.txt", 3)


def test_captions_files(tmp_path) -> None:
    image, caption = {"id": 1, "file_name": "a.jpg"}, {"image_id": 1, "caption": "a dog"}
    for content in ([], {"images": [image]}, {"images": [image | {"file_name": 3}], "annotations": []},
                    {"images": [image], "annotations": [caption | {"caption": None}]},
                    {"images": [image], "annotations": [caption | {"image_id": [1]}]},
                    {"images": 3, "annotations": []}):  # fmt: skip
        (tmp_path / CAPTIONS_FILE).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"{CAPTIONS_FILE}: COCO captions are expected"):
            read_captions(tmp_path)
    (tmp_path / CAPTIONS_FILE).write_text("[" * 200_000)
    with pytest.raises(ValueError, match=rf"{CAPTIONS_FILE}: COCO captions are expected"):
        read_captions(tmp_path)


PICKLES = {
    "code": (pickle.dumps(Call(bytearray, 40 << 30), 2), "bytearray"),
    "a memo of 2^31 places": (big_memo(), "memo of 2,147,483,647 places"),
    "a string of 2^60 bytes": (b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a.", "dictionary of captions"),
    "a string for captions": (pickle.dumps({"a": "dog"}, 2), "to a list of captions"),
    "numbers for captions": (pickle.dumps({"a": [1]}, 2), "a string is expected, got 1"),
    "a list": (pickle.dumps([1], 2), "a dictionary from picture name"),
    "nothing": (b"", "dictionary of captions"),
}


@pytest.mark.parametrize("what", PICKLES)
def test_captions_dictionaries(what: str, tmp_path) -> None:
    data, words = PICKLES[what]
    (tmp_path / CAPTIONS_DICTIONARY).write_bytes(data)
    with little_memory(), pytest.raises(ValueError, match=f"{CAPTIONS_DICTIONARY}: .*{words}"):
        read_captions(tmp_path)
