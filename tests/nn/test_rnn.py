"""The bidirectional layers against torch's own on packed sequences."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.nn.rnn import BiRNN

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU}
LENGTHS = ([3], [1, 5, 2], [4, 0, 9, 1, 4, 3], [50, 2, 3, 2])


def make_pair(kind: str, depth: int) -> tuple[BiRNN, nn.RNNBase]:
    """Ours and torch's, with equal weights."""
    ours = BiRNN(kind, 3, 8, depth).double().eval()
    theirs = KINDS[kind](3, 4, depth, bidirectional=True, batch_first=True).double()
    state = theirs.state_dict()
    for layer in range(depth):
        for modules, suffix in ((ours.forwards, ""), (ours.backwards, "_reverse")):
            for name, value in modules[layer].state_dict().items():
                state[name.replace("l0", f"l{layer}{suffix}")].copy_(value)
    return ours, theirs


def run_packed(rnn: nn.RNNBase, x: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    rows = [row for row in x.split(lengths) if len(row)]
    sizes = [len(row) for row in rows]
    padded = pad_sequence(rows, batch_first=True)
    packed = pack_padded_sequence(padded, sizes, batch_first=True, enforce_sorted=False)
    out = pad_packed_sequence(rnn(packed)[0], batch_first=True)[0]
    return torch.cat([out[i, :size] for i, size in enumerate(sizes)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_equal_to_torch(kind, depth, lengths):
    torch.manual_seed(0)
    ours, theirs = make_pair(kind, depth)
    x = torch.randn(sum(lengths), 3, dtype=torch.double)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    y = ours(inputs[0], group_rows(lengths))
    expected = run_packed(theirs, inputs[1], lengths)
    torch.testing.assert_close(y, expected)
    d_y = torch.randn_like(y)
    y.backward(d_y)
    expected.backward(d_y)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    gradients = dict(theirs.named_parameters())
    for layer in range(depth):
        for modules, suffix in ((ours.forwards, ""), (ours.backwards, "_reverse")):
            for name, weight in modules[layer].named_parameters():
                other = gradients[name.replace("l0", f"l{layer}{suffix}")]
                torch.testing.assert_close(weight.grad, other.grad)


def test_dropout_between_layers():
    torch.manual_seed(0)
    groups, x = group_rows([4, 2]), torch.randn(6, 3)
    for depth, changes in ((1, False), (2, True)):
        rnn = BiRNN("gru", 3, 8, depth)
        assert torch.equal(rnn(x, groups), rnn(x, groups)) != changes
        rnn.eval()
        assert torch.equal(rnn(x, groups), rnn(x, groups))


def test_no_tokens():
    assert BiRNN("lstm", 3, 8, 2)(torch.zeros(0, 3), group_rows([0, 0])).shape == (0, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("rnn", 3, 8, 1), r"Unknown rnn 'rnn': use one of \['lstm', 'gru'\] or null"),
        (("lstm", 3, 7, 1), "even hidden_width .* not 7 and 1"),
        (("lstm", 3, 0, 1), "even hidden_width .* not 0 and 1"),
        (("gru", 3, 8, 0), "depth of at least 1, not 8 and 0"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        BiRNN(*settings)
