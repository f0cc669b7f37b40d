"""`pointer_ner`: nested entities by start and end pointers, with the types' descriptions.

Implements "A Named Entity Recognition Model Based on Multi-Task Learning and Cascading Pointer
Network" (MTL-NER): pointers for every type, and each token classified by its similarity to
descriptions of the types, which the same encoder reads.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy
import srsly
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Model, Optimizer
from torch import Tensor

from spacy_mtlner.codecs.pointers import encode_pointers
from spacy_mtlner.entities import DEFAULT_KEY, Entity
from spacy_mtlner.models.pointer_tagger import PointerInputs
from spacy_mtlner.nn.losses import PointerGold, pointer_loss
from spacy_mtlner.nn.pointer import (
    FIRST_LOGIT,
    PointerScores,
    list_spans,
    prepare_spans,
    relative_shares,
    running_sums,
    span_logits,
)
from spacy_mtlner.pipeline.base import (
    DEFAULT_SCORE_WEIGHTS,
    classify_spans,
    exclude_each_other,
    make_default_model,
    weigh_rows,
)
from spacy_mtlner.pipeline.gold import Gold, GoldReport, GoldSource, known_tokens
from spacy_mtlner.pipeline.side_texts import SideTextComponent, SideTexts

Matching = Literal["spans", "nearest"]
OUTSIDE = "O"  # The description of what is no entity.
SPAN_CHUNK = 1024  # Tokens whose spans are scored at once.
PRUNING = 0.01  # Of the p of an entity: what less likely pointers begin or end is not scored.

DEFAULT_CONFIG = """
[model]
@architectures = "spacy_mtlner.PointerTagger.v1"
rnn = "lstm"
hidden_width = 128
depth = 1
match_width = 64
max_length = 32
description_length = 16
dropout = null
"""

DEFAULT_POINTER_MODEL = make_default_model(DEFAULT_CONFIG)


@Language.factory(
    "pointer_ner",
    assigns=["doc.spans"],
    default_config={
        "model": DEFAULT_POINTER_MODEL,
        "spans_key": DEFAULT_KEY,
        "gold": "auto",
        "annotate_ents": False,
        "overwrite": False,
        "learn_rate_factor": 1.0,
        "matching": "spans",
        "threshold": 0.5,
        "beta": 0.5,
        "fusion": 0.25,
        "positive_weight": 1.0,
        "contrast": 0.25,
        "scorer": {"@scorers": "spacy_mtlner.entity_scorer.v1"},
    },
    default_score_weights=DEFAULT_SCORE_WEIGHTS,
)
def make_pointer_ner(
    nlp: Language,
    name: str,
    model: Model[PointerInputs, PointerScores],
    spans_key: str,
    gold: GoldSource,
    annotate_ents: bool,
    overwrite: bool,
    learn_rate_factor: float,
    matching: Matching,
    threshold: float,
    beta: float | Literal["learned"],
    fusion: float,
    positive_weight: float,
    contrast: float,
    scorer: Callable[..., dict[str, Any]] | None,
) -> "PointerEntityRecognizer":
    """Construct a `pointer_ner` component: see `PointerEntityRecognizer`."""
    return PointerEntityRecognizer(
        nlp,
        model,
        name,
        spans_key=spans_key,
        gold=gold,
        annotate_ents=annotate_ents,
        overwrite=overwrite,
        learn_rate_factor=learn_rate_factor,
        matching=matching,
        threshold=threshold,
        beta=beta,
        fusion=fusion,
        positive_weight=positive_weight,
        contrast=contrast,
        scorer=scorer,
    )


class PointerEntityRecognizer(SideTextComponent):
    """Finds contiguous entities, nested ones of any type included.

    A candidate of start i, end j and type r has the pointers' probability p: with matching "spans"
    that of the span, see `span_logits`, if its start and its end, as pointers of any type, have a
    hundredth of the p that the threshold needs; with "nearest" sqrt(p_start p_end), and only the
    nearest end behind each start is a candidate. The classification's evidence c is the mean over
    the candidate's tokens of how near they are to r's description, relative to the nearest one:
    exp(s_r - max s). The entity's score is p^(1 - fusion) c^fusion, in [0, 1].

    nlp (Language): The pipeline, whose tokenizer and encoder read the descriptions.
    matching (Matching): How starts and ends are paired: "spans" or, as in the paper, "nearest".
    threshold (float): The lowest score of an entity.
    beta (Union[float, Literal["learned"]]): Weight of the pointers' loss against that of the
        classification (eq. 15): a number in [0, 1], or "learned". 1 needs no descriptions; with 0
        no pointers are learned: a type's entities are then the longest runs of tokens that are near
        to its description.
    fusion (float): Weight of the classification in an entity's score, in [0, 1].
    positive_weight (float): Weight of starts, ends and spans that are there in the loss, relative
        to others.
    contrast (float): Weight of the contrast between an entity and the spans that begin or end where
        it does, in the loss; 0 for none, for matching "spans" only.
    Other settings: see `EntityComponent`.
    RAISES (ValueError): If a setting is out of its range.
    """

    def __init__(
        self,
        nlp: Language,
        model: Model,
        name: str,
        *,
        matching: Matching,
        threshold: float,
        beta: float | Literal["learned"],
        fusion: float,
        positive_weight: float,
        contrast: float,
        **settings: Any,
    ) -> None:
        super().__init__(nlp.vocab, model, name, **settings)
        if matching not in get_args(Matching):
            raise ValueError(f"{name}: matching must be 'spans' or 'nearest', not {matching!r}.")
        if beta != "learned" and not (isinstance(beta, int | float) and 0 <= beta <= 1):
            raise ValueError(f"{name}: beta must be in [0, 1] or 'learned', not {beta!r}.")
        for setting, value in (("threshold", threshold), ("fusion", fusion)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: {setting} must be in [0, 1], not {value}.")
        if not contrast >= 0:
            raise ValueError(f"{name}: contrast must be at least 0, not {contrast}.")
        if not positive_weight > 0:
            raise ValueError(f"{name}: positive_weight must be above 0, not {positive_weight}.")
        self.cfg.update(
            matching=matching,
            threshold=threshold,
            beta=beta,
            fusion=fusion,
            positive_weight=positive_weight,
            contrast=contrast,
            descriptions={},
            untrained=[],
        )
        self._taught: set[str] = set()  # The labels of the examples since the last update.
        self.side_texts = SideTexts(
            nlp,
            self,
            self._make_descriptions,
            what="descriptions",
            remedy="set beta = 1 to do without descriptions",
        )
        model.attrs["described"] = beta != 1

    @property
    def n_outputs(self) -> int:
        """RETURNS (int): The number of types."""
        return len(self.labels)

    @property
    def representable(self) -> str:
        """RETURNS (str): What the component learns."""
        return f"contiguous ones of at most {self.model.attrs['max_length']} tokens"

    @property
    def descriptions(self) -> dict[str, str]:
        """RETURNS (dict[str, str]): The description of each type, and that of "O"."""
        return dict(self.cfg["descriptions"])

    def set_descriptions(self, descriptions: Mapping[str, str] | str | Path) -> None:
        """Replace the descriptions, also of a trained component.

        descriptions (Union[Mapping[str, str], str, Path]): A description for each type and for "O",
            or the path of a JSON file with them.
        RAISES (ValueError): If they are not that, or one is missing although the types are known.
        """
        found: Any = descriptions
        where = ""
        if isinstance(descriptions, str | Path):
            where = f" of {descriptions}"
            if not Path(descriptions).is_file():
                raise ValueError(f"{self.name}: there is no file {str(descriptions)!r} to read.")
            try:
                found = srsly.read_json(descriptions)
            except ValueError as err:
                raise ValueError(f"{self.name}: descriptions{where} are no JSON: {err}") from None
        if not isinstance(found, Mapping) or not all(isinstance(v, str) for v in found.values()):
            raise ValueError(
                f'{self.name}: descriptions{where} must be an object {{"<label>": "<text>", ..., '
                f'"{OUTSIDE}": "<text>"}}.'
            )
        if self.is_initialized:
            self._check_descriptions(found)
        self.side_texts.forget()
        self.cfg["descriptions"] = dict(found)

    def add_type(self, label: str, description: str) -> None:
        """Add a type by its description. In a trained component it is found without training, as
        far as its description tells: its spans are those that are likely for any trained type.

        label (str): The type's label.
        description (str): Its description.
        RAISES (ValueError): If the description is empty, or the component has no descriptions.
        """
        if not self._is_described:
            raise ValueError(f"{self.name} has no descriptions, as beta is 1: use add_label.")
        if not description.strip():
            raise ValueError(f"{self.name}: the description of {label!r} is empty.")
        known = self.cfg["descriptions"]
        self.cfg["descriptions"] = {**known, label: description}
        try:
            self.add_label(label)
        except ValueError:
            self.cfg["descriptions"] = known
            raise

    def add_label(self, label: str) -> int:
        """Add a label. A component that is trained with descriptions needs one of it, from the
        present ones or by `add_type`, and finds its entities by that alone until it learns more.

        label (str): The label.
        RETURNS (int): 1, or 0 if it was there already.
        RAISES (ValueError): If the label has no description.
        """
        if self._is_described and label == OUTSIDE:
            raise ValueError(
                f"{self.name}: no label may be {OUTSIDE!r}, whose description is that of tokens "
                f"in no entity. Rename it, or set beta = 1 to do without descriptions."
            )
        needs_description = self.is_initialized and self._is_described
        if needs_description and not self.cfg["descriptions"].get(label, "").strip():
            raise ValueError(f"{self.name}: use add_type({label!r}, description) instead.")
        is_new = super().add_label(label)
        self.side_texts.forget()
        if is_new and needs_description:
            self.cfg["untrained"].append(label)
        return is_new

    @property
    def _is_described(self) -> bool:
        return bool(self.model.attrs["described"])

    def _check_descriptions(self, descriptions: Mapping[str, str]) -> None:
        if not self._is_described:
            return
        names = (*self.labels, OUTSIDE)
        missing = [name for name in names if not descriptions.get(name, "").strip()]
        if missing:
            raise ValueError(
                f"{self.name} needs a description for: {', '.join(missing)}. Give them in "
                f"[initialize.components.{self.name}] descriptions, as an object or the path of a "
                f"JSON file, or set beta = 1 to do without."
            )

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
        descriptions: Mapping[str, str] | str | Path | None = None,
    ) -> None:
        """Find labels and the source of the gold, report what cannot be learned, and initialise the
        model.

        get_examples (Callable[[], Iterable[Example]]): Returns the training examples.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Sequence[str]]): The labels; if None, those of the examples' entities.
        descriptions (Optional[Union[Mapping[str, str], str, Path]]): As for `set_descriptions`.
        RAISES (ValueError): If there are no labels, or a label or "O" has no description.
        """
        if descriptions is not None:
            self.set_descriptions(descriptions)
        self.side_texts.prefer(nlp)
        super().initialize(get_examples, nlp=nlp, labels=labels)

    def initialize_model(self, sample: list[Doc], report: GoldReport) -> None:
        """Initialise the model, whose dimension nO is set.

        sample (list[Doc]): Some docs; at least one has tokens.
        report (GoldReport): What the training data hold.
        """
        self._check_descriptions(self.cfg["descriptions"])
        self.side_texts.forget()
        self.cfg["untrained"] = []
        # How rare starts are: otherwise training would first have to learn that, which takes
        # hundreds of steps where there are many types.
        self.model.attrs["first_logit"] = FIRST_LOGIT
        if report.n_tokens:
            share = min(0.5, (report.labels.total() + 0.5) / (report.n_tokens * len(self.labels)))
            self.model.attrs["first_logit"] = math.log(share / (1 - share))
        self.model.initialize(X=PointerInputs(sample, []))

    def select_representable(self, entities: list[Entity]) -> list[Entity]:
        """Select contiguous entities of at most max_length tokens.

        entities (list[Entity]): Gold entities of a doc.
        RETURNS (list[Entity]): Those that can be learned.
        """
        longest = self.model.attrs["max_length"]
        return [e for e in entities if e.is_contiguous and e.end - e.start <= longest]

    def make_inputs(self, docs: list[Doc], *, is_train: bool) -> PointerInputs:
        """Add the encoded descriptions to a batch of docs.

        docs (list[Doc]): The docs.
        is_train (bool): Whether the encoder learns from the descriptions.
        RETURNS (PointerInputs): The model's input.
        """
        if not self._is_described:
            return PointerInputs(docs, [])
        vocab = docs[0].vocab
        if is_train:
            return PointerInputs(docs, *self.side_texts.begin_update(vocab))
        return PointerInputs(docs, self.side_texts.predict(vocab))

    def make_training_inputs(
        self, examples: Sequence[Example], golds: Sequence[Gold | None]
    ) -> PointerInputs:
        """Make the model's input for an update.

        examples (Sequence[Example]): The examples.
        golds (Sequence[Optional[Gold]]): Their gold, as `read_golds` returns it.
        RETURNS (PointerInputs): The input.
        """
        if self.cfg["untrained"]:
            counting = (gold for gold in golds if gold is not None and gold.weight > 0)
            self._taught.update(entity.label for gold in counting for entity in gold.entities)
        inputs: PointerInputs = super().make_training_inputs(examples, golds)
        return inputs

    def finish_update(self, sgd: Optimizer) -> None:
        """Change the weights by their gradients, the head's at its own learning rate; types added
        by their descriptions are ones like the others once examples of them have taught it.

        sgd (Optimizer): The optimizer.
        """
        super().finish_update(sgd)
        self.cfg["untrained"] = [x for x in self.cfg["untrained"] if x not in self._taught]
        self._taught.clear()

    def _make_descriptions(self, nlp: Language) -> list[Doc]:
        length = self.model.attrs["description_length"]
        texts = self.cfg["descriptions"]
        return [nlp.make_doc(texts[name])[:length].as_doc() for name in (*self.labels, OUTSIDE)]

    def decode(self, docs: Sequence[Doc], scores: PointerScores) -> list[list[Entity]]:
        """Find the candidates whose score reaches the threshold.

        docs (Sequence[Doc]): The docs; at least one has tokens.
        scores (PointerScores): The model's output.
        RETURNS (list[list[Entity]]): Each doc's entities, in order of the text, longer ones first.
        """
        lengths = numpy.array([len(doc) for doc in docs])
        device = scores.starts.device
        row_ends = torch.from_numpy(numpy.repeat(lengths.cumsum(), lengths)).to(device)
        shares = None
        if scores.classes.shape[1]:
            shares = running_sums(relative_shares(scores.classes))  # (n_tokens + 1, n_types)
        find = self._find_spans if self.cfg["matching"] == "spans" else self._find_nearest
        if self.cfg["beta"] == 0:
            find = self._find_runs
        found = [torch.cat(parts) for parts in zip(*find(scores, row_ends, shares), strict=True)]
        starts, ends, types, values = (part.cpu().numpy() for part in found)
        order = numpy.lexsort((types, -ends, starts))
        rows = numpy.repeat(numpy.arange(len(lengths)), lengths)
        offsets = lengths.cumsum() - lengths
        names = self.labels
        entities: list[list[Entity]] = [[] for _ in docs]
        owners = rows[starts]
        for row, start, end, label, value in zip(
            owners[order].tolist(),
            (starts - offsets[owners])[order].tolist(),
            (ends - offsets[owners])[order].tolist(),
            types[order].tolist(),
            values[order].tolist(),
            strict=True,
        ):
            entities[row].append(Entity(names[label], ((start, end),), value))
        return entities

    def class_probabilities(
        self, docs: Sequence[Doc], entities: Sequence[Sequence[Entity]]
    ) -> list[NDArray[numpy.float32]]:
        """Tell how likely spans are to be an entity of each label, and to be none.

        The types' scores f_r are independent of each other: a span may be of several. This is what
        they say of a span that is of one type at most: the odds f_r / (1 - f_r) of each type
        against 1 for none, over their sum. With one type it is f itself. Whether its pointers
        are likely enough, another end is nearer or a run of tokens goes on is not asked. A span
        that is discontinuous, or longer than max_length, is none.

        docs (Sequence[Doc]): The docs.
        entities (Sequence[Sequence[Entity]]): The spans of each doc; their labels are not read.
        RETURNS (list[NDArray[numpy.float32]]): For each doc a row for each span: see
            `EntityComponent.class_probabilities`.
        """
        self._require_initialized()

        def classify(part: list[Doc], spans: NDArray[numpy.int64]) -> NDArray[numpy.float64]:
            scores = self.model.predict(self.make_inputs(part, is_train=False))
            offsets = numpy.cumsum([0, *map(len, part)])[spans[:, 0]]
            size = spans[:, 2] - spans[:, 1]
            is_known = size <= len(scores.span_lengths)
            result = numpy.zeros((len(spans), len(self.labels)))
            firsts = torch.from_numpy((offsets + spans[:, 1])[is_known]).to(scores.starts.device)
            sizes = torch.from_numpy(size[is_known]).to(scores.starts.device)
            values = self._score_spans(scores, firsts, sizes).cpu().double()  # (n_spans, n_types)
            result[is_known] = exclude_each_other(values.numpy())
            return result

        return classify_spans(docs, entities, len(self.labels), classify)

    def _score_spans(self, scores: PointerScores, firsts: Tensor, sizes: Tensor) -> Tensor:
        """Scores, as of entities, of spans of all types: (n_spans, n_types)."""
        behind = firsts + sizes
        means = None
        if scores.classes.shape[1]:
            shares = running_sums(relative_shares(scores.classes))  # (n_tokens + 1, n_types)
            means = (shares[behind] - shares[firsts]) / sizes[:, None]
        if self.cfg["beta"] == 0:
            assert means is not None
            return means.clamp(0, 1)
        if self.cfg["matching"] == "spans":
            logits = scores.starts.new_empty((len(firsts), scores.starts.shape[1]))
            chunks = firsts // SPAN_CHUNK
            for chunk in chunks.unique().tolist():
                here, first = (chunks == chunk).nonzero()[:, 0], chunk * SPAN_CHUNK
                parts = prepare_spans(scores, first, first + SPAN_CHUNK)
                logits[here] = span_logits(scores, parts, firsts[here], sizes[here] - 1)
            values = self._borrow(logits).sigmoid()
        else:
            starts = self._borrow(scores.starts)[firsts].sigmoid()
            values = (starts * self._borrow(scores.ends)[behind - 1].sigmoid()).sqrt()
        return values if means is None else self._fuse(values, means)

    def _find_spans(
        self, scores: PointerScores, row_ends: Tensor, shares: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Start, end, type and score of all spans that reach the threshold, chunk by chunk."""
        longest = len(scores.span_lengths)
        fusion = self.cfg["fusion"] if shares is not None else 0.0
        # The least p of which p^(1 - fusion) can reach the threshold.
        least = PRUNING * self.cfg["threshold"] ** (1 / (1 - fusion)) if fusion < 1 else 0.0
        is_start, is_end = (
            self._borrow(pointers).amax(1).sigmoid() >= least
            for pointers in (scores.starts, scores.ends)
        )
        for first in range(0, len(row_ends), SPAN_CHUNK):
            starts = first + is_start[first : first + SPAN_CHUNK].nonzero()[:, 0]
            parts = prepare_spans(scores, first, first + SPAN_CHUNK)
            firsts, offsets = list_spans(starts, row_ends[starts], longest)
            kept = is_end[firsts + offsets]
            firsts, offsets = firsts[kept], offsets[kept]
            values = self._borrow(span_logits(scores, parts, firsts, offsets)).sigmoid()
            behind = firsts + offsets + 1
            if shares is not None:
                values = self._fuse(
                    values, (shares[behind] - shares[firsts]) / (offsets + 1)[:, None]
                )
            span, label = (values >= self.cfg["threshold"]).nonzero(as_tuple=True)
            yield firsts[span], behind[span], label, values[span, label]

    def _find_nearest(
        self, scores: PointerScores, row_ends: Tensor, shares: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Start, end, type and score of each start with the nearest end of its type."""
        starts = self._borrow(scores.starts).sigmoid()  # (n_tokens, n_types)
        ends = self._borrow(scores.ends).sigmoid()
        index = torch.arange(len(row_ends), device=row_ends.device)[:, None]
        nothing = len(row_ends)
        places = torch.where(ends >= self.cfg["threshold"], index, nothing)
        nearest = places.flip(0).cummin(0).values.flip(0)
        is_near = nearest < torch.minimum(index + len(scores.span_lengths), row_ends[:, None])
        start, label = ((starts >= self.cfg["threshold"]) & is_near).nonzero(as_tuple=True)
        last = nearest[start, label]
        values = (starts[start, label] * ends[last, label]).sqrt()
        if shares is not None:
            means = (shares[last + 1, label] - shares[start, label]) / (last + 1 - start)
            values = self._fuse(values, means)
        kept = values >= self.cfg["threshold"]
        yield start[kept], last[kept] + 1, label[kept], values[kept]

    def _find_runs(
        self, scores: PointerScores, row_ends: Tensor, shares: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Start, end, type and score of each run of tokens that are near enough to a type."""
        assert shares is not None
        is_near = relative_shares(scores.classes) >= self.cfg["threshold"]  # (n_tokens, n_types)
        is_last = row_ends == torch.arange(1, len(row_ends) + 1, device=row_ends.device)
        goes_on = is_near[:-1] & is_near[1:] & ~is_last[:-1, None]
        outside = is_near.new_zeros((1, is_near.shape[1]))
        # Type by type, each one's starts and ends in the same order.
        label, start = (is_near & ~torch.cat([outside, goes_on])).T.nonzero(as_tuple=True)
        _, last = (is_near & ~torch.cat([goes_on, outside])).T.nonzero(as_tuple=True)
        sizes = last + 1 - start
        values = ((shares[last + 1, label] - shares[start, label]) / sizes).clamp(0, 1)
        kept = sizes <= len(scores.span_lengths)
        yield start[kept], last[kept] + 1, label[kept], values[kept].to(scores.classes.dtype)

    def _fuse(self, probabilities: Tensor, means: Tensor) -> Tensor:
        fusion = self.cfg["fusion"]
        evidence = means.clamp(0, 1).to(probabilities.dtype)
        return probabilities ** (1 - fusion) * evidence**fusion

    def _borrow(self, logits: Tensor) -> Tensor:
        """Give types that are known by their description alone the boundaries of all others."""
        if not self.cfg["untrained"]:
            return logits
        is_untrained = torch.tensor([label in self.cfg["untrained"] for label in self.labels])
        any_type = logits[..., ~is_untrained].amax(-1, keepdim=True)
        return torch.where(is_untrained.to(logits.device), any_type, logits)

    def compute_loss(
        self, golds: Sequence[Gold | None], lengths: Sequence[int], scores: PointerScores
    ) -> Tensor:
        """Compute the joint loss of pointers and classification: see `pointer_loss`.

        golds (Sequence[Optional[Gold]]): Each example's gold; None where it is not annotated.
        lengths (Sequence[int]): Each example's number of predicted tokens.
        scores (PointerScores): The model's output.
        RETURNS (Tensor): The loss, a scalar.
        """
        device = scores.starts.device
        ids = {label: i for i, label in enumerate(self.labels)}
        offsets = numpy.cumsum([0, *lengths])
        table = [
            (offset + entity.start, offset + entity.end, ids[entity.label])
            for offset, gold in zip(offsets.tolist(), golds, strict=False)
            if gold is not None
            for entity in gold.entities
        ]
        spans = numpy.array(table, dtype=numpy.int64).reshape(-1, 3)
        targets = encode_pointers(spans, int(offsets[-1]), len(ids))
        known = known_tokens(golds, lengths)
        arrays = (targets.starts, targets.ends, targets.spans, targets.classes, known)
        gold_tensors = (torch.from_numpy(a).to(device) for a in arrays)
        beta = self.cfg["beta"]
        return pointer_loss(
            scores,
            PointerGold(*gold_tensors),
            lengths,
            *weigh_rows(golds, scores.starts),
            beta=None if beta == "learned" else beta,
            positive_weight=self.cfg["positive_weight"],
            contrast=self.cfg["contrast"],
            match_spans=self.cfg["matching"] == "spans" and beta != 0,
        )
