"""Updates of torch modules in a pipeline."""

import copy
import os
from pathlib import Path

import pytest
import spacy
import torch
from spacy.training import Example
from thinc.api import Adam, Optimizer, Shim
from torch import nn

from spacy_mtlner.models import learning_shim
from spacy_mtlner.models.learning_shim import LearningShim
from spacy_mtlner.models.torch_layer import TorchShim, get_module_shim
from spacy_mtlner.models.transformer import EncoderShim


@pytest.mark.parametrize("kind", [EncoderShim, TorchShim])
def test_all_shims_learn_alike(kind: type[Shim]) -> None:
    assert kind.finish_update is LearningShim.finish_update
    assert kind.use_params is LearningShim.use_params


def test_weights_without_a_gradient_stay() -> None:
    module = nn.Linear(2, 2)
    shim, optimizer = LearningShim(module), Adam(0.1)
    bias = module.bias.detach().clone()
    module(torch.ones(1, 2)).sum().backward()
    shim.finish_update(optimizer)
    weight = module.weight.detach().clone()
    assert not torch.equal(module.bias, bias)
    bias = module.bias.detach().clone()
    (module.bias * 2).sum().backward()  # The weight's momentum would move it now.
    shim.finish_update(optimizer)
    assert torch.equal(module.weight, weight)
    assert not torch.equal(module.bias, bias)


def test_averages_reach_the_weights_and_leave_them_again() -> None:
    module = nn.Linear(2, 2)
    shim, optimizer = LearningShim(module), Adam(0.1, use_averages=True)
    for _ in range(5):
        (module(torch.ones(1, 2)) ** 2).sum().backward()
        shim.finish_update(optimizer)
    weights = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    with pytest.raises(RuntimeError, match="stop"), shim.use_params(optimizer.averages):
        for name, weight in module.named_parameters():
            averages = torch.as_tensor(optimizer.averages[shim.id, name])
            torch.testing.assert_close(weight.detach(), averages)
            assert not torch.allclose(averages, weights[name])
        raise RuntimeError("stop")
    for name, weight in module.named_parameters():
        assert torch.equal(weight, weights[name])
    with shim.use_params({}):
        assert torch.equal(module.bias, weights["bias"])


def test_averages_of_a_whole_pipeline() -> None:
    """Of the head, which learns at a rate of its own, as of the embedding."""
    nlp = spacy.blank("en")
    component = nlp.add_pipe("crf_ner", config={"learn_rate_factor": 3.0})
    doc = nlp.make_doc("Ada met Bob")
    doc.ents = [doc.char_span(0, 3, label="PER")]
    examples = [Example(nlp.make_doc("Ada met Bob"), doc)]
    nlp.initialize(lambda: examples)
    optimizer = Adam(0.1, use_averages=True)
    for _ in range(3):
        nlp.update(examples, sgd=optimizer)
    head = get_module_shim(component.model.get_ref("output_layer"))
    keys = {(head.id, name) for name, _ in head.module.named_parameters()}
    assert keys and keys <= optimizer.averages.keys()
    before = head.to_bytes()
    with nlp.use_params(optimizer.averages):
        assert head.to_bytes() != before
    assert head.to_bytes() == before


def test_a_copy_is_another_one_to_the_optimizer() -> None:
    """Which keeps moments by a shim's id and the names of its weights."""
    shim = LearningShim(nn.Linear(2, 2))
    copies = [shim.copy(), copy.deepcopy(shim).copy()]
    assert len({shim.id, *(copied.id for copied in copies)}) == 3
    for copied in copies:
        assert torch.equal(copied._model.weight, shim._model.weight)
        assert copied._model.weight is not shim._model.weight


def test_memory_is_given_back_when_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    shim = LearningShim(nn.Linear(2, 2))
    monkeypatch.setattr(learning_shim, "release_memory", lambda: calls.append(1))
    # After the largest update so far, 200, memory may be up to 220; after one of 300, up to 330.
    for used, n_calls in [(100, 0), (110, 0), (200, 1), (200, 1), (219, 1), (300, 2), (300, 2)]:
        monkeypatch.setattr(learning_shim, "measure_memory", lambda used=used: used)
        shim.finish_update(Optimizer(0.01))
        assert len(calls) == n_calls
    monkeypatch.setattr(learning_shim, "measure_memory", lambda: 331)
    for _ in range(4):  # The first time it is given back; then so much is what an update takes.
        shim.finish_update(Optimizer(0.01))
    assert len(calls) == 3


def test_memory_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page_size = os.sysconf("SC_PAGE_SIZE")
    if Path("/proc/self/statm").exists():
        assert learning_shim.measure_memory() > 20_000_000  # torch alone takes more.
    statm = tmp_path / "statm"
    monkeypatch.setattr(learning_shim, "Path", lambda name: statm)
    assert learning_shim.measure_memory() == 0
    statm.write_text("500 300 20 10 0 40 0\n", encoding="ascii")
    assert learning_shim.measure_memory() == 300 * page_size


def test_other_c_libraries_have_nothing_to_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(learning_shim.ctypes, "CDLL", lambda name: calls.append(name))
    learning_shim.release_memory()
    assert calls == [None]
