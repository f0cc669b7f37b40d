"""Torch modules as thinc layers: saving, dropout, threads, empty rows."""

from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from thinc.api import Adam, Model, chain, noop, set_dropout_rate
from torch import Tensor, nn

from spacy_mtlner.models.torch_layer import (
    build,
    get_module_shim,
    torch_layer,
    torch_to_rows,
)

WIDTH = 4


class Module(nn.Module):
    """Mixes each row's mean into its tokens."""

    def __init__(self, width: int, n_layers: int = 1) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(n_layers)))

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        rows = [row + row.mean(0, keepdim=True) for row in x.split(lengths) if len(row)]
        return self.layers(self.dropout(torch.cat([*rows, x[:0]])))


def make_layer(*, dropout: float | None = None, **settings: int) -> Model:
    model = torch_layer("module", Module, torch_to_rows, dropout=dropout)
    if settings:
        model.set_dim("nI", settings["width"])
        build(model, **settings)
    return model


def make_rows(*lengths: int) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(0)
    return [generator.normal(size=(n, WIDTH)).astype("f") for n in lengths]


def assert_equal(rows, others) -> None:
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        numpy.testing.assert_array_equal(row, other)


def module_of(model: Model) -> nn.Module:
    return get_module_shim(model).module


def test_forward_and_backward():
    model = make_layer(width=WIDTH)
    set_dropout_rate(model, 0.0)
    rows = make_rows(3, 2)
    y, backprop = model.begin_update(rows)
    assert_equal(y, model.predict(rows))
    assert [row.dtype for row in y] == [numpy.float32] * 2
    d_y = make_rows(3, 2)
    d_x = backprop(d_y)
    x = torch.from_numpy(numpy.concatenate(rows)).requires_grad_()
    expected = module_of(model)(x, [3, 2])
    gradients = torch.autograd.grad(
        expected, [x, *module_of(model).parameters()], torch.from_numpy(numpy.concatenate(d_y))
    )
    numpy.testing.assert_allclose(numpy.concatenate(d_x), gradients[0], rtol=1e-5)
    assert [len(d) for d in d_x] == [3, 2]
    for weight, gradient in zip(module_of(model).parameters(), gradients[1:], strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    before = model.predict(rows)
    model.finish_update(Adam(0.1))
    assert abs(model.predict(rows)[0] - before[0]).max() > 0.01
    assert all(p.grad is None for p in module_of(model).parameters())


def test_input_is_copied():
    """Other layers read the same memory."""

    class InPlace(nn.Linear):
        def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
            with torch.no_grad():
                x.add_(1)
            return super().forward(x)

    model = torch_layer("in_place", InPlace, torch_to_rows)
    build(model, in_features=WIDTH, out_features=1)
    for rows in (make_rows(3), make_rows(2, 3)):
        before = [row.copy() for row in rows]
        model.predict(rows)
        model.begin_update(rows)
        assert_equal(rows, before)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_bytes(n_layers):
    model = make_layer(width=WIDTH, n_layers=n_layers)
    fresh = make_layer()
    fresh.from_bytes(model.to_bytes())
    assert len(module_of(fresh).layers) == n_layers
    assert not module_of(fresh).training
    assert fresh.get_dim("nI") == WIDTH
    rows = make_rows(3, 1)
    assert_equal(fresh.predict(rows), model.predict(rows))
    assert fresh.to_bytes() == model.to_bytes()
    # Also over a module of another size, and from a layer that was never built.
    model.from_bytes(make_layer(width=WIDTH, n_layers=2).to_bytes())
    assert len(module_of(model).layers) == 2
    make_layer().from_bytes(make_layer().to_bytes())


def test_disk(tmp_path):
    model, fresh = make_layer(width=WIDTH), make_layer()
    model.to_disk(tmp_path / "model")
    fresh.from_disk(tmp_path / "model")
    assert_equal(fresh.predict(make_rows(2)), model.predict(make_rows(2)))


def test_trains_on_after_loading():
    fresh = make_layer().from_bytes(make_layer(width=WIDTH).to_bytes())
    set_dropout_rate(fresh, 0.0)
    rows, optimizer = make_rows(3, 1), Adam(0.05)
    losses = []
    for _ in range(20):
        y, backprop = fresh.begin_update(rows)
        losses.append(sum((row**2).sum() for row in y))
        backprop([2 * row for row in y])
        fresh.finish_update(optimizer)
    assert losses[-1] < losses[0] / 2


def test_copy():
    model = make_layer(width=WIDTH)
    rows = make_rows(3)
    before = model.predict(rows)
    copy = model.copy()
    assert_equal(copy.predict(rows), before)
    with torch.no_grad():
        for weight in module_of(copy).parameters():
            weight.zero_()
    assert_equal(model.predict(rows), before)


def test_dropout():
    inner, fixed = make_layer(width=WIDTH), make_layer(width=WIDTH, dropout=0.25)
    model = chain(chain(noop(), inner), fixed)
    for rate in (0.0, 0.7):
        set_dropout_rate(model, rate)
        model.begin_update(make_rows(3))
        assert module_of(inner).dropout.p == rate
        assert module_of(fixed).dropout.p == 0.25
    rows = [numpy.ones((200, WIDTH), dtype="f")]
    torch.manual_seed(0)
    y, _ = inner.begin_update(rows)
    assert len(numpy.unique(y[0], axis=0)) > 1
    assert len(numpy.unique(inner.predict(rows)[0], axis=0)) == 1
    set_dropout_rate(model, 0.0)
    y, _ = inner.begin_update(rows)
    assert len(numpy.unique(y[0], axis=0)) == 1


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_that_are_none(rate):
    with pytest.raises(ValueError, match=r"dropout of .* must be at least 0 and below 1, or null"):
        make_layer(width=WIDTH, dropout=rate)


def test_rate_of_its_own_holds_from_the_first_update_on():
    model = make_layer(width=WIDTH, dropout=0.0)
    set_dropout_rate(model, 0.9)
    rows = make_rows(50)
    assert_equal(model.begin_update(rows)[0], model.predict(rows))


def test_module_stays_in_evaluation_mode():
    model = make_layer(width=WIDTH)
    modes = []
    module_of(model).register_forward_pre_hook(lambda module, _: modes.append(module.training))
    rows = make_rows(2)
    assert not module_of(model).training
    _, backprop = model.begin_update(rows)
    assert not module_of(model).training
    backprop(make_rows(2))
    model.predict(rows)
    assert modes == [True, False]
    with pytest.raises(RuntimeError):
        model.begin_update([numpy.ones((2, WIDTH + 1), dtype="f")])
    assert not any(module.training for module in module_of(model).modules())


def test_threads():
    model = make_layer(width=WIDTH)
    module_of(model).dropout.p = 0.9
    batches = [make_rows(n % 5 + 1, n % 3) for n in range(100)]
    expected = [model.predict(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for rows, others in zip(pool.map(model.predict, batches), expected, strict=True):
            assert_equal(rows, others)


@pytest.mark.parametrize("empty_width", [0, WIDTH])
@pytest.mark.parametrize("lengths", [(0, 3, 0, 2, 0), (0, 0), (0,)])
def test_empty_rows(empty_width, lengths):
    model = make_layer(width=WIDTH)
    set_dropout_rate(model, 0.0)
    rows = [row if len(row) else numpy.zeros((0, empty_width), "f") for row in make_rows(*lengths)]
    y, backprop = model.begin_update(rows)
    assert [row.shape for row in y] == [(n, WIDTH) for n in lengths]
    assert_equal(model.predict(rows), y)
    assert [d.shape for d in backprop(y)] == [(n, WIDTH) for n in lengths]
    filled = [row for row in rows if len(row)]
    if filled:
        assert_equal([row for row in y if len(row)], model.predict(filled))


@pytest.mark.parametrize("lengths", [(2, 3), (2,)])
def test_rows_of_tokens_without_vectors(lengths):
    """They are zeros, as spacy-curated-transformers gives them for whitespace within a batch."""
    model = make_layer(width=WIDTH)
    set_dropout_rate(model, 0.0)
    first, *others = make_rows(*lengths)
    y, backprop = model.begin_update([first[:, :0], *others])
    assert_equal(y, model.predict([first * 0, *others]))
    assert [d.shape for d in backprop(y)] == [(2, 0), *((n, WIDTH) for n in lengths[1:])]
