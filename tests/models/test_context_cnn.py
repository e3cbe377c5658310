"""The context CNN and its caption encoders against the published architecture written in plain torch."""

from __future__ import annotations

import pytest
import torch
from support import parameters
from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_fast.models import ContextCNN
from inpaint_fast.models.caption_encoders import GRU, LSTM, BagOfWords

WORDS = 7576


def test_published_parameter_counts() -> None:
    assert parameters(ContextCNN()) == 8_894_615
    assert parameters(ContextCNN((2, 2))) == 16_540_823
    assert parameters(ContextCNN((1, 1, 1, 1))) == 5_449_047
    # 250 more units of code: weights to and from 8192, and biases
    assert parameters(ContextCNN(code=750)) == 8_894_615 + 250 * (2 * 8192 + 1)
    assert parameters(ContextCNN(dense=False)) == 8_894_615 - (2 * 8192 * 500 + 500 + 8192)


def test_caption_parameter_counts() -> None:
    plain, joined = 8_894_615, 9_713_815  # 100 more inputs to 8192
    for kind in ("bow1", "bow5"):
        network = ContextCNN(captions=kind, vocabulary=WORDS)
        assert parameters(network.captions) == 757_700
        assert parameters(network) == joined + 757_700
    gates = 100 * 100 * 2 + 100
    lstm = ContextCNN(captions="lstm", vocabulary=WORDS)
    assert parameters(lstm.captions) == WORDS * 100 + 4 * gates + 3 * 100
    gru = ContextCNN(captions="gru", vocabulary=WORDS)
    assert parameters(gru.captions) == WORDS * 100 + 3 * gates
    bias = ContextCNN(captions="bow1", vocabulary=WORDS, fusion="bias")
    assert parameters(bias) == plain + 757_700 + 100 * 128 + 128
    bias_map = ContextCNN(captions="bow1", vocabulary=WORDS, fusion="bias_map")
    assert parameters(bias_map) == plain + 757_700 + 101 * 128 * 16 * 16


def published(network: ContextCNN, picture: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Larocque's network in functional form, with the weights in the order in which its layers come."""
    weights = iter([p for name, p in network.named_parameters() if not name.startswith(("captions", "caption_bias"))])

    def convolutions(x: Tensor, count: int) -> Tensor:
        for _ in range(count):
            x = F.conv2d(x, next(weights), padding=1)
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
            scale, shift = next(weights), next(weights)
            x = F.relu((x - mean) / torch.sqrt(var + 1e-4) * scale[:, None, None] + shift[:, None, None])
        return x

    x = picture
    for count in blocks:
        x = F.max_pool2d(convolutions(x, count), 2)
    shape = x.shape
    x = F.relu(F.linear(x.flatten(1), next(weights), next(weights)))
    x = F.relu(F.linear(x, next(weights), next(weights))).view(shape)
    for _ in blocks[1:]:
        x = convolutions(x.repeat_interleave(2, 2).repeat_interleave(2, 3), blocks[-1])
    return F.conv2d(x, next(weights), next(weights))


@pytest.mark.proves(
    "ContextCNN",
    equals="the auto-encoder written in plain torch.nn.functional",
    source="S. Larocque, IFT6266 project (2017)",
    dtypes="float64",
)
@pytest.mark.parametrize("blocks", [(2, 2, 2), (2, 2), (1, 1, 1, 1)])
def test_it_equals_the_published_one(blocks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = ContextCNN(blocks, filters=4, code=20, output="none").double()
    picture = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(network(picture), published(network, picture, blocks))


def test_outputs() -> None:
    picture = torch.rand(2, 3, 64, 64)
    state = ContextCNN(filters=2, code=4, output="none").eval().state_dict()

    def output(kind: str, **options) -> Tensor:
        network = ContextCNN(filters=2, code=4, output=kind, **options).eval()
        network.load_state_dict(state)
        return network(picture)

    plain = output("none")
    for kind, activation in (
        ("relu", torch.relu), ("sigmoid", torch.sigmoid), ("tanh", torch.tanh), ("clip", lambda x: x.clamp(0, 1)),
    ):  # fmt: skip
        torch.testing.assert_close(output(kind), activation(plain))
    hole = picture[..., 16:48, 16:48]
    torch.testing.assert_close(output("none", residual=True), hole + plain)
    torch.testing.assert_close(output("clip", residual=True), (hole + plain).clamp(0, 1))
    network = ContextCNN(filters=2, code=4, output="clip").eval()
    network.load_state_dict(state)
    clipped, unclipped = network(picture, unclipped=True)
    torch.testing.assert_close(unclipped, plain)
    assert torch.equal(clipped, network(picture))


def test_a_residual_network_starts_as_the_prefill() -> None:
    picture = torch.rand(2, 3, 64, 64)
    network = ContextCNN(filters=2, code=4, output="clip", residual=True)
    torch.testing.assert_close(network(picture), picture[..., 16:48, 16:48])


def test_bag_of_words() -> None:
    ids = torch.tensor([[[3, 5, 3, 0], [1, 0, 0, 0]], [[4, 0, 0, 0], [4, 4, 4, 4]]])
    first = torch.zeros(2, 6)
    first[0, [3, 5]] = 1
    first[1, 4] = 1
    second = torch.zeros(2, 6)
    second[0, 1] = 1
    second[1, 4] = 1
    for options, bag in (
        ({"captions": 1}, first),
        ({"captions": 2}, (first + second) / 2),
        ({"captions": 2, "reduce": "sum"}, first + second),
    ):
        network = BagOfWords(6, 3, **options)
        torch.testing.assert_close(network(ids), F.relu(network.dense(bag)))


def test_gru_is_torchs_where_they_agree() -> None:
    torch.manual_seed(0)
    ours, theirs = GRU(9, 6).double().eval(), nn.GRU(6, 6, batch_first=True).double()
    with torch.no_grad():
        weights = (("weight_ih_l0", ours.from_word.weight), ("weight_hh_l0", ours.from_state.weight))
        for name, weight in weights:
            weight.normal_()
            reset, update, new = weight.chunk(3)
            getattr(theirs, name).copy_(torch.cat([reset, -update, new]))  # its z is 1 - u
        theirs.bias_ih_l0.zero_(), theirs.bias_hh_l0.zero_()
    ids = torch.randint(9, (4, 2, 7))
    expected = theirs(ours.embedding(ids[:, 0]))[1][0]
    torch.testing.assert_close(ours(ids), expected)


def test_lstm_is_torchs_without_peepholes_and_its_formula_with_them() -> None:
    torch.manual_seed(0)
    ours, theirs = LSTM(9, 6).double().eval(), nn.LSTM(6, 6, batch_first=True).double()
    with torch.no_grad():
        ours.peepholes.zero_(), ours.from_word.bias.normal_()
        theirs.weight_ih_l0.copy_(ours.from_word.weight), theirs.weight_hh_l0.copy_(ours.from_state.weight)
        theirs.bias_ih_l0.copy_(ours.from_word.bias), theirs.bias_hh_l0.zero_()
    ids = torch.randint(9, (4, 2, 7))
    torch.testing.assert_close(ours(ids), theirs(ours.embedding(ids[:, 0]))[1][0][0])
    with torch.no_grad():
        ours.peepholes.normal_()
    one = ids[:, :, :1]  # of one word: the cell starts at 0, so only the output gate looks at it
    into, _, new, out = ours.from_word(ours.embedding(one[:, 0, 0])).chunk(4, 1)
    cell = torch.sigmoid(into) * torch.tanh(new)
    torch.testing.assert_close(ours(one), torch.sigmoid(out + ours.peepholes[2] * cell) * torch.tanh(cell))
    assert not torch.allclose(ours(ids), theirs(ours.embedding(ids[:, 0]))[1][0][0])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_random_caption_in_training_and_the_first_in_eval(kind: str) -> None:
    encoder = {"lstm": LSTM, "gru": GRU}[kind](9, 4)
    ids = torch.arange(5)[None, :, None].expand(64, 5, 3) + 2
    chosen = torch.unique(encoder(ids).detach(), dim=0)
    assert len(chosen) == 5
    assert len(torch.unique(encoder.eval()(ids).detach(), dim=0)) == 1


def test_the_caption_bias_starts_as_the_plain_network_and_then_tells_captions_apart() -> None:
    torch.manual_seed(0)
    picture, ids = torch.rand(1, 3, 64, 64).expand(2, -1, -1, -1), torch.tensor([[[2, 3]], [[4, 5]]])
    for fusion in ("bias", "bias_map"):
        network = ContextCNN(filters=2, code=4, captions="bow1", vocabulary=9, fusion=fusion, output="none")
        first, second = network(picture, ids)
        torch.testing.assert_close(first, second)
        nn.init.normal_(network.caption_bias.weight)
        first, second = network(picture, ids)
        assert not torch.allclose(first, second)  # normalisation removes the batch's mean alone


def test_wrong_use_is_named() -> None:
    for options, words in (
        ({"blocks": (2,)}, "blocks"),
        ({"blocks": (2, 0)}, "blocks"),
        ({"filters": 0}, "filters.*0"),
        ({"kernel": 4}, "kernel.*4"),
        ({"output": "softmax"}, "output.*'softmax'"),
        ({"prefill": "nothing"}, "prefill.*'nothing'"),
        ({"fusion": "sum"}, "fusion.*'sum'"),
        ({"captions": "bow2", "vocabulary": 9}, "captions.*'bow2'"),
        ({"captions": "bow1"}, "vocabulary.*0"),
        ({"captions": "bow1", "vocabulary": 9, "dense": False}, "dense"),
        ({"output": "sigmoid", "residual": True}, "output.*'sigmoid'"),
    ):
        with pytest.raises(ValueError, match=words):
            ContextCNN(**options)
    with pytest.raises(ValueError, match=r"ContextCNN.*\(1, 3, 32, 32\)"):
        ContextCNN(filters=2)(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="captions are expected"):
        ContextCNN(filters=2, captions="gru", vocabulary=9)(torch.rand(1, 3, 64, 64))
