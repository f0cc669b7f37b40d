"""The classifier of candidates against a loop that reads them one by one."""

from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from spacy_mtlner.codecs.spans import NO_CANDIDATES, Candidates
from spacy_mtlner.entities import Fragments
from spacy_mtlner.nn import span
from spacy_mtlner.nn.ragged import group_rows
from spacy_mtlner.nn.resize import copy_first_outputs
from spacy_mtlner.nn.span import SpanClassifier, SpanRequest, attend

WIDTH, N_CLASSES, SPAN_WIDTH = 5, 4, 6
LENGTHS = [7, 0, 1, 6]
CANDIDATES: list[Fragments] = [
    ((0, 1),),
    ((0, 4),),
    ((2, 4),),
    ((0, 2), (4, 5), (6, 7)),
    ((7, 8),),
    ((8, 14),),
    ((9, 10), (12, 14)),
    ((9, 10),),
]


def make_classifier(**settings: Any) -> SpanClassifier:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "rnn": None,
        "hidden_width": 8,
        "depth": 1,
        "span_width": SPAN_WIDTH,
        "length_logits": [],
    }
    return SpanClassifier(WIDTH, N_CLASSES, **(defaults | settings)).eval()


def make_vectors() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(sum(LENGTHS), WIDTH, requires_grad=True)


def request(candidates: list[Fragments]) -> SpanRequest:
    return SpanRequest(others=Candidates.of_fragments(candidates))


def classify_one(classifier: SpanClassifier, x: Tensor, fragments: Fragments) -> Tensor:
    """A stock bidirectional LSTM over the candidate's tokens, then attention and classes."""
    lstm = nn.LSTM(x.shape[1], SPAN_WIDTH // 2, bidirectional=True)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(lstm, name).copy_(getattr(classifier.forwards, name))
            getattr(lstm, f"{name}_reverse").copy_(getattr(classifier.backwards, name))
    outputs, (final, _) = lstm(torch.cat([x[start:end] for start, end in fragments]))
    weights = (outputs @ final.flatten()).softmax(0)
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    return classifier.classes(classifier.norm(weights @ outputs))


def test_equals_reading_each_candidate_alone() -> None:
    classifier, x = make_classifier(), make_vectors()
    scores = classifier(x, LENGTHS, request(CANDIDATES))
    wanted = torch.stack([classify_one(classifier, x, fragments) for fragments in CANDIDATES])
    torch.testing.assert_close(scores.logits, wanted)
    assert scores.sizes.tolist() == [1, 4, 2, 4, 1, 6, 3, 1]
    assert scores.tokens[5:7].tolist() == [2, 3]
    # The gradients as well: a run's states belong to several candidates.
    torch.manual_seed(2)
    d_logits = torch.randn_like(wanted)
    gradients = torch.autograd.grad((scores.logits * d_logits).sum(), [x])
    torch.testing.assert_close(gradients, torch.autograd.grad((wanted * d_logits).sum(), [x]))


def test_recurrent_layer_over_the_rows_comes_first() -> None:
    classifier, x = make_classifier(rnn="gru"), make_vectors()
    assert classifier.rnn is not None
    scores = classifier(x, LENGTHS, request(CANDIDATES))
    states = classifier.rnn(x, group_rows(LENGTHS))
    wanted = torch.stack([classify_one(classifier, states, fragments) for fragments in CANDIDATES])
    torch.testing.assert_close(scores.logits, wanted)


@pytest.mark.parametrize(
    "candidates", [[], [((3, 5),)], [((i, i + 2),) for i in range(0, 6)], [((0, 1), (2, 3))] * 2]
)
def test_any_number_of_candidates(candidates: list[Fragments]) -> None:
    classifier, x = make_classifier(), make_vectors()
    logits = classifier(x, LENGTHS, request(candidates)).logits
    assert logits.shape == (len(candidates), N_CLASSES)
    for found, fragments in zip(logits, candidates, strict=True):
        torch.testing.assert_close(found, classify_one(classifier, x, fragments))


def test_no_tokens() -> None:
    scores = make_classifier(length_logits=[0.0] * 3, rnn="lstm")(
        torch.zeros(0, WIDTH), [0, 0], SpanRequest()
    )
    assert scores.logits.shape == (0, N_CLASSES) and len(scores.starts) == 0


def test_many_candidates_are_made_anew_for_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = make_classifier()

    def gradients() -> list[Tensor]:
        x = make_vectors()
        logits = classifier(x, LENGTHS, request(CANDIDATES)).logits
        learned = [x, *classifier.forwards.parameters(), *classifier.classes.parameters()]
        return list(torch.autograd.grad(logits.square().sum(), learned))

    wanted = gradients()
    calls = 0
    real = span.checkpoint

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(span, "MAX_POSITIONS", 4)
    monkeypatch.setattr(span, "checkpoint", counting)
    torch.testing.assert_close(gradients(), wanted)
    assert calls > 1


def test_parts_at_prediction_are_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, x = make_classifier(), make_vectors().detach()
    wanted = classifier(x, LENGTHS, request(CANDIDATES)).logits
    monkeypatch.setattr(span, "MAX_POSITIONS", 4)
    torch.testing.assert_close(classifier(x, LENGTHS, request(CANDIDATES)).logits, wanted)


def test_gradients_are_the_same_every_time_with_several_threads() -> None:
    torch.manual_seed(0)
    classifier = SpanClassifier(
        64, 4, rnn=None, hidden_width=8, depth=1, span_width=64, length_logits=[]
    )
    x = torch.randn(1000, 64, requires_grad=True)
    wanted = request([((i, min(1000, i + n)),) for i in range(1000) for n in (1, 3, 6)])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = [
            torch.autograd.grad(classifier.eval()(x, [1000], wanted).logits.square().sum(), x)[0]
            for _ in range(4)
        ]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_attention_weights_sum_to_one() -> None:
    torch.manual_seed(0)
    ahead, back = torch.randn(2, 9, 3)
    at = torch.tensor([0, 4]), torch.tensor([1, 5])
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    # Of outputs that are all the same, any weights that sum to 1 make the same again.
    same = attend(ahead * 0 + ahead[:1], back * 0 + back[:1], *at, mask)
    torch.testing.assert_close(same, torch.cat([ahead[:1], back[:1]], 1).expand(2, -1))


def test_attention_ignores_padding() -> None:
    torch.manual_seed(0)
    ahead, back = torch.randn(2, 9, 3)
    at = torch.tensor([0, 4]), torch.tensor([1, 5])
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    together = attend(ahead, back, *at, mask)
    alone = attend(ahead, back, at[0][:1], at[1][:1], mask[:1, :2])
    torch.testing.assert_close(together[:1], alone)


# Proposals


def test_best_boundaries_are_proposed() -> None:
    classifier = make_classifier(length_logits=[0.0] * 4)
    assert classifier.boundaries is not None
    with torch.no_grad():  # A start wherever the first feature is positive, an end with the second.
        classifier.boundaries.weight.zero_()
        classifier.boundaries.weight[0, 0] = classifier.boundaries.weight[1, 1] = 1.0
    x = torch.full((5, WIDTH), -1.0)
    x[1, 0] = x[2, 1] = x[3, 1] = 5.0
    scores = classifier(x, [5], SpanRequest(per_token=2.0))
    assert len(scores.sizes) == 10
    assert scores.sizes[:2].sort().values.tolist() == [2, 3]
    assert scores.tokens[:5].tolist() in ([1, 2, 1, 2, 3], [1, 2, 3, 1, 2])
    torch.testing.assert_close(scores.starts, x[:, 0] + classifier.boundaries.bias[0])


def test_boundaries_speak_against_no_entity() -> None:
    classifier, x = make_classifier(length_logits=[0.5, 1.5, 2.5]), make_vectors()
    scores = classifier(x, LENGTHS, request(CANDIDATES))
    for logits, fragments in zip(scores.logits, CANDIDATES, strict=True):
        wanted = classify_one(classifier, x, fragments)
        size = min(3, sum(end - start for start, end in fragments))
        wanted[0] = wanted[0] - (
            scores.starts[fragments[0][0]] + scores.ends[fragments[-1][1] - 1] + size - 0.5
        )
        torch.testing.assert_close(logits, wanted)


def test_spans_are_proposed_in_wanted_rows_alone() -> None:
    classifier, x = make_classifier(length_logits=[0.0] * 3), make_vectors()
    wanted = numpy.array([False, True, False, True])
    scores = classifier(x, LENGTHS, SpanRequest(per_token=2.0, rows=wanted))
    assert scores.tokens.min() >= 8 and len(scores.sizes) == 12
    alone = classifier(x[8:], [6], SpanRequest(per_token=2.0))
    torch.testing.assert_close(scores.logits, alone.logits)


def test_gold_comes_first_and_is_not_proposed_again() -> None:
    classifier, x = make_classifier(length_logits=[0.0] * 9), make_vectors()
    gold = Candidates.of_fragments([((8, 10),), ((0, 1), (3, 4))])
    scores = classifier(x, LENGTHS, SpanRequest(gold, per_token=99.0))
    assert scores.sizes[:2].tolist() == [2, 2] and scores.tokens[:4].tolist() == [8, 9, 0, 3]
    n_spans = 7 * 8 // 2 + 1 + 6 * 7 // 2
    assert len(scores.sizes) == n_spans + 1  # The discontinuous one was no proposal.
    assert (scores.weights == 1).all()


def test_sampled_negatives_stand_for_all() -> None:
    classifier, x = make_classifier(), make_vectors()
    others = Candidates.of_fragments([((i, i + 1),) for i in range(14)])
    gold = Candidates.of_fragments([((0, 1),)])
    scores = classifier(x, LENGTHS, SpanRequest(gold, others, negative_ratio=4.0))
    assert scores.weights.tolist() == [1.0] + [13 / 4] * 4


def test_given_entities_alone() -> None:
    classifier, x = make_classifier(length_logits=[0.0] * 9), make_vectors()
    gold = Candidates.of_fragments(CANDIDATES)
    scores = classifier(x, LENGTHS, SpanRequest(gold, NO_CANDIDATES))
    assert len(scores.logits) == len(CANDIDATES)


def test_grows_by_classes_behind_the_present_ones() -> None:
    small, x = make_classifier(length_logits=[0.0] * 3), make_vectors()
    large = SpanClassifier(
        WIDTH,
        N_CLASSES + 2,
        rnn=None,
        hidden_width=8,
        depth=1,
        span_width=SPAN_WIDTH,
        length_logits=[0.0] * 3,
    ).eval()
    copy_first_outputs(small, large)
    a, b = (module(x, LENGTHS, SpanRequest()) for module in (small, large))
    torch.testing.assert_close(b.logits[:, :N_CLASSES], a.logits)
    torch.testing.assert_close(b.starts, a.starts)
