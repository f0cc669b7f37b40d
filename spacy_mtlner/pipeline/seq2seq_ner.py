"""`seq2seq_ner`: flat, nested and discontinuous entities by one generator, or read from the
relations of token pairs, or by both.

Implements "Multi-task Transformer with Relation-attention and Type-attention for Named Entity
Recognition".
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy
import torch
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import logger
from spacy.vocab import Vocab
from thinc.api import Model
from torch import Tensor

from spacy_mtlner.codecs.fragments import TokenSets, cut_into_windows, list_tokens
from spacy_mtlner.codecs.relations import (
    BEGIN_END,
    INSIDE,
    N_RELATIONS,
    CellScores,
    RelationTargets,
    count_cells,
    decode_relations,
    encode_relations,
    locate_cells,
)
from spacy_mtlner.codecs.sequence import END, decode_sequences, encode_sequences, list_allowed
from spacy_mtlner.codecs.tags import IntArray, ranges
from spacy_mtlner.entities import DEFAULT_KEY, Entity, Fragments, shift_fragments
from spacy_mtlner.models.seq2seq import BART_PREFIX, KnownNames, Seq2SeqInputs, split_windows
from spacy_mtlner.nn.losses import Seq2SeqGold, seq2seq_loss
from spacy_mtlner.nn.seq2seq import FREE_SYMBOLS, Seq2SeqScores
from spacy_mtlner.pipeline.base import (
    DEFAULT_SCORE_WEIGHTS,
    PREDICTED_TOKENS,
    classify_entities,
    exclude_each_other,
    make_default_model,
)
from spacy_mtlner.pipeline.gold import Gold, GoldReport, GoldSource, known_tokens, read_gold
from spacy_mtlner.pipeline.knowledge import (
    Knowledge,
    check_knowledge,
    count_entities,
    read_knowledge,
    select_frequent,
)
from spacy_mtlner.pipeline.side_texts import SideTextComponent, SideTexts
from spacy_mtlner.pipeline.windows import Windows, cut_doc, find_windows, select_inside

DecoderName = Literal["generate", "relations", "both"]
NAME_LENGTH = 16  # Tokens of a known entity's name that are read.
LOWEST_LINK = 0.05  # What is followed in the relations, however low the threshold.


DEFAULT_CONFIG = """
[model]
@architectures = "spacy_mtlner.Seq2Seq.v1"
bart = null
width = 128
encoder_depth = 2
decoder_depth = 2
n_heads = 4
hidden_width = 256
relations = true
relation_width = 64
relation_attention = true
type_attention = true
type_width = 64
n_names = 32
window = 128
max_symbols = 4.0
dropout = null
"""

DEFAULT_SEQ2SEQ_MODEL = make_default_model(DEFAULT_CONFIG)


@Language.factory(
    "seq2seq_ner",
    assigns=["doc.spans"],
    default_config={
        "model": DEFAULT_SEQ2SEQ_MODEL,
        "spans_key": DEFAULT_KEY,
        "gold": "auto",
        "annotate_ents": False,
        "overwrite": False,
        "learn_rate_factor": 1.0,
        "decoder": "both",
        "beam_width": 1,
        "threshold": 0.3,
        "relation_weight": 0.3,
        "alpha": 1.0,
        "tau": 1.0,
        "overlap": None,
        "scorer": {"@scorers": "spacy_mtlner.entity_scorer.v1"},
    },
    default_score_weights=DEFAULT_SCORE_WEIGHTS,
)
def make_seq2seq_ner(
    nlp: Language,
    name: str,
    model: Model[Seq2SeqInputs, Seq2SeqScores],
    spans_key: str,
    gold: GoldSource,
    annotate_ents: bool,
    overwrite: bool,
    learn_rate_factor: float,
    decoder: DecoderName,
    beam_width: int,
    threshold: float,
    relation_weight: float,
    alpha: float,
    tau: float,
    overlap: int | None,
    scorer: Callable[..., dict[str, Any]] | None,
) -> "Seq2SeqEntityRecognizer":
    """Construct a `seq2seq_ner` component: see `Seq2SeqEntityRecognizer`."""
    return Seq2SeqEntityRecognizer(
        nlp,
        model,
        name,
        spans_key=spans_key,
        gold=gold,
        annotate_ents=annotate_ents,
        overwrite=overwrite,
        learn_rate_factor=learn_rate_factor,
        decoder=decoder,
        beam_width=beam_width,
        threshold=threshold,
        relation_weight=relation_weight,
        alpha=alpha,
        tau=tau,
        overlap=overlap,
        scorer=scorer,
    )


@dataclass(frozen=True)
class Seq2SeqTargets:
    """What a batch of examples has as gold, window by window.

    golds (list[Optional[Gold]]): Each example's gold; None where it is not annotated.
    windows (IntArray): The windows' numbers of tokens, shape (n_windows,).
    rows (IntArray): The example of each window, shape (n_windows,).
    symbols (IntArray): The windows' sequences, shape (n_windows, n_steps).
    relations (Optional[RelationTargets]): Their grids, where relations are learned.
    """

    golds: list[Gold | None]
    windows: IntArray
    rows: IntArray
    symbols: IntArray
    relations: RelationTargets | None


@dataclass(frozen=True)
class Found:
    """What was found in some windows.

    parts (list[tuple[TokenSets, NDArray[Any]]]): Entities and their scores; of an entity that is in
        several parts, the highest score counts.
    n_windows (int): The number of windows.
    """

    parts: list[tuple[TokenSets, NDArray[Any]]]
    n_windows: int


class Seq2SeqEntityRecognizer(SideTextComponent):
    """Finds entities of any form: flat, nested and discontinuous ones.

    With decoder "generate", a doc's entities are generated window by window as sequences of tokens
    and types, of which each is valid. An entity's score is the probability that behind the
    entities before it exactly this one comes next. With decoder "relations", they are read from the
    relations of token pairs, see `decode_relations`, and an entity's score is the probability that
    it begins and ends where it does, with its type, times the lowest one of its links. With decoder
    "both", an entity's score is the mean of the two; that of generation is 0 for what was not
    generated.

    nlp (Language): The pipeline, whose tokenizer and encoder read the known entities.
    decoder (DecoderName): "generate", "both" or, much faster, "relations".
    beam_width (int): Hypotheses per window in generation; 1 is greedy.
    threshold (float): The lowest score of an entity.
    relation_weight (float): w, the weight of the relations' loss against that of generation
        (eq. 13); 0 leaves relations unlearned.
    alpha (float): Factor of the focal loss (eq. 5).
    tau (float): Its exponent.
    overlap (Optional[int]): In prediction, how many tokens of a window the next one has as well,
        where a sentence is longer than a window; None for a quarter of the window. See
        `Windows.merge`.
    Other settings: see `EntityComponent`.
    RAISES (ValueError): If a setting is out of its range, or the decoder has nothing to read.
    """

    def __init__(
        self,
        nlp: Language,
        model: Model,
        name: str,
        *,
        decoder: DecoderName,
        beam_width: int,
        threshold: float,
        relation_weight: float,
        alpha: float,
        tau: float,
        overlap: int | None,
        **settings: Any,
    ) -> None:
        super().__init__(nlp.vocab, model, name, **settings)
        if not 0 <= threshold <= 1:
            raise ValueError(f"{name}: threshold must be in [0, 1], not {threshold}.")
        if beam_width < 1:
            raise ValueError(f"{name}: beam_width must be at least 1, not {beam_width}.")
        for setting, value in (("relation_weight", relation_weight), ("tau", tau)):
            if not value >= 0:
                raise ValueError(f"{name}: {setting} must be at least 0, not {value}.")
        if not alpha > 0:
            raise ValueError(f"{name}: alpha must be above 0, not {alpha}.")
        window = model.attrs["window"]
        if overlap is not None and not 0 <= overlap < window:
            raise ValueError(
                f"{name}: overlap must be at least 0 and below the model's window ({window}), not "
                f"{overlap}."
            )
        self.cfg.update(
            overlap=overlap,
            beam_width=beam_width,
            threshold=threshold,
            relation_weight=relation_weight,
            alpha=alpha,
            tau=tau,
            knowledge={},
        )
        self.decoder = decoder
        self.side_texts = SideTexts(
            nlp,
            self,
            self._make_names,
            what="known entities",
            remedy="set type_attention = false to do without",
        )

    @property
    def decoder(self) -> DecoderName:
        """RETURNS (DecoderName): How entities are found; it may be set at any time."""
        found: DecoderName = self.cfg["decoder"]
        return found

    @decoder.setter
    def decoder(self, value: DecoderName) -> None:
        if value not in get_args(DecoderName):
            raise ValueError(
                f"{self.name}: decoder must be 'generate', 'relations' or 'both', not {value!r}."
            )
        if value != "generate" and not self._learns_relations:
            raise ValueError(
                f"{self.name}: decoder = {value!r} needs relations, which are not learned: set "
                f"relations = true in its model, and relation_weight above 0, or decoder = "
                f"'generate'."
            )
        self.cfg["decoder"] = value

    @property
    def _learns_relations(self) -> bool:
        return bool(self.model.attrs["relations"] and self.cfg["relation_weight"] > 0)

    @property
    def n_outputs(self) -> int:
        """RETURNS (int): The number of types."""
        return len(self.labels)

    @property
    def representable(self) -> str:
        """RETURNS (str): What the component learns."""
        size = self.model.attrs["window"]
        return f"those within one window: a sentence where they are set, at most {size} tokens"

    @property
    def encoder_prefix(self) -> str | None:
        """RETURNS (Optional[str]): With a pre-trained BART, the prefix of its weights' names."""
        return BART_PREFIX if self.model.attrs["bart"] is not None else None

    @property
    def knowledge(self) -> Knowledge:
        """RETURNS (Knowledge): The known entities of each type and their frequencies."""
        return {label: dict(names) for label, names in self.cfg["knowledge"].items()}

    def set_knowledge(self, knowledge: Mapping[str, Mapping[str, float]] | str | Path) -> None:
        """Replace the known entities, also of a trained component; of each type, the `n_names` most
        frequent ones are kept.

        knowledge (Union[Mapping[str, Mapping[str, float]], str, Path]): Type to name to frequency,
            or the path of a file of known entities, as `mtlner knowledge` writes it.
        RAISES (ValueError): If it is something else.
        """
        try:
            if isinstance(knowledge, str | Path):
                knowledge = read_knowledge(Path(knowledge))
            else:
                knowledge = check_knowledge(knowledge)
        except (OSError, ValueError) as err:
            raise ValueError(f"{self.name}: no knowledge: {err}") from None
        n_names = self.model.attrs["n_names"]
        self.cfg["knowledge"] = {
            label: [list(item) for item in select_frequent(names, n_names)]
            for label, names in sorted(knowledge.items())
        }
        self.side_texts.forget()

    def add_label(self, label: str) -> int:
        """Add a label; a component that is initialised gets a larger output.

        label (str): The label.
        RETURNS (int): 1, or 0 if it was there already.
        """
        self.side_texts.forget()
        return super().add_label(label)

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: Sequence[str] | None = None,
        knowledge: Mapping[str, Mapping[str, float]] | str | Path | None = None,
    ) -> None:
        """Find labels and the source of the gold, report what cannot be learned, and initialise the
        model.

        get_examples (Callable[[], Iterable[Example]]): Returns the training examples.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Sequence[str]]): The labels; if None, those of the examples' entities.
        knowledge (Optional[Union[Mapping[str, Mapping[str, float]], str, Path]]): Known entities,
            as for `set_knowledge`; if None, those of the examples.
        RAISES (ValueError): If there are no labels.
        """
        self.side_texts.prefer(nlp)
        super().initialize(get_examples, nlp=nlp, labels=labels)
        if not self.model.attrs["type_attention"]:
            return
        if knowledge is None:
            golds = ((eg.predicted, self.read_gold(eg)) for eg in get_examples())
            knowledge = count_entities((doc, gold.entities) for doc, gold in golds if gold)
        self.set_knowledge(knowledge)
        unknown = [label for label in self.labels if not self.cfg["knowledge"].get(label)]
        if unknown:
            logger.info("%s: no known entities for %s", self.name, ", ".join(unknown))

    def initialize_model(self, sample: list[Doc], report: GoldReport) -> None:
        """Initialise the model, whose dimension nO is set.

        sample (list[Doc]): Some docs; at least one has tokens.
        report (GoldReport): What the training data hold.
        """
        self.side_texts.forget()
        self.model.initialize(X=Seq2SeqInputs(sample, []))

    def read_gold(self, example: Example) -> Gold | None:
        """Read an example's gold; entities that cross a window's border are counted as left out.

        example (Example): The example.
        RETURNS (Optional[Gold]): The gold; None if the reference is not annotated for the task.
        """
        ends = self._cut(example.predicted)
        select = partial(select_inside, ends=ends)
        return read_gold(example, self.key, self.cfg["gold_source"], select)

    def _cut(self, doc: Doc) -> list[int]:
        return cut_doc(doc, self.model.attrs["window"])

    def _measure_windows(self, ends: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
        """The windows' numbers of tokens, and the doc that each one is of, from each doc's cuts."""
        sizes = [numpy.diff(part, prepend=0) for part in ends]
        empty = numpy.zeros(0, dtype=numpy.int64)
        windows = numpy.concatenate([empty, *sizes]).astype(numpy.int64)
        return windows, numpy.repeat(numpy.arange(len(ends)), list(map(len, ends)))

    def make_inputs(self, docs: list[Doc], *, is_train: bool) -> Seq2SeqInputs:
        """Cut docs into windows, and add the known entities.

        docs (list[Doc]): The docs.
        is_train (bool): Whether the encoder learns from the known entities.
        RETURNS (Seq2SeqInputs): The model's input, for the decoder that is set.
        """
        windows = self._find_windows(docs, is_train=is_train)
        return self._make_inputs(docs, windows, self.decoder, is_train=is_train)

    def _make_inputs(
        self,
        docs: list[Doc],
        windows: Sequence[Windows],
        decoder: DecoderName,
        *,
        is_train: bool = False,
    ) -> Seq2SeqInputs:
        sizes = numpy.concatenate([own.ends - own.starts for own in windows])
        tokens = None
        if any(own.has_overlap for own in windows):
            offsets = numpy.cumsum([0, *map(len, docs)]).tolist()
            starts = [own.starts + first for own, first in zip(windows, offsets, strict=False)]
            tokens = ranges(numpy.concatenate(starts), sizes)
        return Seq2SeqInputs(
            docs,
            sizes.tolist(),
            self._read_names(docs[0].vocab, is_train=is_train),
            with_cells=decoder != "generate",
            beam_width=self.cfg["beam_width"] if decoder != "relations" else 0,
            tokens=tokens,
        )

    def _find_windows(self, docs: Sequence[Doc], *, is_train: bool = False) -> list[Windows]:
        """Each doc's windows; in prediction, those of one sentence overlap."""
        size, overlap = self.model.attrs["window"], self.cfg["overlap"]
        overlap = size // 4 if overlap is None else overlap
        return [find_windows(doc, size, 0 if is_train else overlap) for doc in docs]

    def make_training_inputs(
        self, examples: Sequence[Example], golds: Seq2SeqTargets
    ) -> Seq2SeqInputs:
        """Make the model's input for an update: docs with the gold sequences of their windows.

        examples (Sequence[Example]): The examples.
        golds (Seq2SeqTargets): Their gold.
        RETURNS (Seq2SeqInputs): The input.
        """
        docs = [example.predicted for example in examples]
        return Seq2SeqInputs(
            docs,
            golds.windows.tolist(),
            self._read_names(docs[0].vocab, is_train=True),
            golds.symbols,
            with_cells=golds.relations is not None,
        )

    def _list_names(self) -> list[tuple[int, str, float]]:
        """Type, name and weight theta of each known entity of the present labels."""
        found: list[tuple[int, str, float]] = []
        for i, label in enumerate(self.labels):
            names = self.cfg["knowledge"].get(label, [])
            total = sum(frequency for _, frequency in names)
            found.extend((i, name, frequency / total) for name, frequency in names)
        return found

    def _make_names(self, nlp: Language) -> list[Doc]:
        docs = [nlp.make_doc(name) for _, name, _ in self._list_names()]
        return [doc if len(doc) <= NAME_LENGTH else doc[:NAME_LENGTH].as_doc() for doc in docs]

    def _read_names(self, vocab: Vocab, *, is_train: bool) -> KnownNames | None:
        if not self.model.attrs["type_attention"]:
            return None
        names = self._list_names()
        types, weights = [i for i, _, _ in names], [weight for _, _, weight in names]
        if not names:
            return KnownNames([], [], [], [])
        docs = self.side_texts.docs(vocab)
        if self.model.attrs["bart"] is not None:  # It reads them itself.
            return KnownNames(docs, types, weights, [])
        if is_train:
            return KnownNames(docs, types, weights, *self.side_texts.begin_update(vocab))
        return KnownNames(docs, types, weights, self.side_texts.predict(vocab))

    def read_golds(self, examples: Sequence[Example]) -> Seq2SeqTargets:
        """Read the gold of a batch, window by window.

        examples (Sequence[Example]): The examples.
        RETURNS (Seq2SeqTargets): The gold.
        RAISES (ValueError): If a label is unknown.
        """
        golds: list[Gold | None] = super().read_golds(examples)
        ids = {label: i for i, label in enumerate(self.labels)}
        ends = [self._cut(example.predicted) for example in examples]
        windows, rows = self._measure_windows(ends)
        entities = [
            part
            for own, gold in zip(ends, golds, strict=True)
            for part in cut_into_windows(
                [(e.fragments, ids[e.label]) for e in (gold.entities if gold else ())],
                own,
            )
        ]
        symbols = encode_sequences(entities, len(ids))
        n_steps, max_symbols = (self.model.attrs[x] for x in ("max_steps", "max_symbols"))
        limits = numpy.minimum(FREE_SYMBOLS + max_symbols * windows, n_steps - 1)
        n_symbols = (symbols != END).sum(1)
        if (n_symbols > limits).any():
            is_fixed = self.model.attrs["bart"] is not None and n_symbols.max() >= n_steps
            warnings.warn(
                f"{self.name}: the gold of {(n_symbols > limits).sum()} windows of a batch is "
                f"longer than what is generated, {FREE_SYMBOLS} symbols and {max_symbols:g} for "
                f"each token, {n_steps - 1} at most: {'' if is_fixed else 'raise max_symbols, or '}"
                f"lower the window, in [components.{self.name}.model].",
                stacklevel=3,
            )
        symbols = symbols[:, :n_steps]
        relations = None
        if self._learns_relations:
            relations = encode_relations(entities, windows, len(ids))
        return Seq2SeqTargets(golds, windows, rows, symbols, relations)

    def compute_loss(
        self, golds: Seq2SeqTargets, lengths: Sequence[int], scores: Seq2SeqScores
    ) -> Tensor:
        """Compute the joint loss of generation and relations, per token: see `seq2seq_loss`.

        Windows with tokens of which nothing is known teach no generation, and pairs with such
        tokens no relation.

        golds (Seq2SeqTargets): The gold.
        lengths (Sequence[int]): Each example's number of predicted tokens.
        scores (Seq2SeqScores): The model's output.
        RETURNS (Tensor): The loss, a scalar.
        """
        device = scores.steps.device
        n_tokens = sum(n for n, gold in zip(lengths, golds.golds, strict=True) if gold is not None)
        doc_weights = numpy.array([gold.weight if gold else 0.0 for gold in golds.golds])
        weights = (doc_weights / max(1, n_tokens))[golds.rows].astype(numpy.float32)
        unknown = ~known_tokens(golds.golds, lengths)
        ends = numpy.cumsum(golds.windows)
        n_unknown = numpy.add.reduceat(unknown, ends - golds.windows, dtype=numpy.int64)
        is_end = golds.symbols == 0
        n_steps = golds.symbols.shape[1]
        is_step = (numpy.cumsum(is_end, axis=1) - is_end) == 0  # Up to the first END.
        allowed = list_allowed(golds.symbols, golds.windows, len(self.labels))
        step_weights = numpy.repeat(
            numpy.where(n_unknown > 0, 0, weights)[:, None], n_steps, axis=1
        )
        arrays: list[NDArray[Any]] = [
            golds.symbols[is_step],
            allowed[is_step],
            step_weights[is_step].astype(numpy.float32),
        ]
        empty = numpy.zeros(0, dtype=numpy.int64)
        if golds.relations is None:
            arrays += [empty, empty, empty, empty]
        else:
            cell_weights = numpy.repeat(weights, golds.windows**2)
            offsets = count_cells(golds.windows)
            for window in numpy.flatnonzero(n_unknown):
                own = unknown[ends[window] - golds.windows[window] : ends[window]]
                cells = cell_weights[offsets[window] : offsets[window + 1]]
                cells[(own[:, None] | own).reshape(-1)] = 0
            relations = golds.relations
            arrays += [relations.classes, cell_weights, relations.pairs, relations.types]
        return seq2seq_loss(
            scores,
            Seq2SeqGold(*(torch.from_numpy(array).to(device) for array in arrays)),
            relation_weight=self.cfg["relation_weight"],
            alpha=self.cfg["alpha"],
            tau=self.cfg["tau"],
        )

    def predict_part(self, docs: list[Doc]) -> list[list[Entity]]:
        """Predict the entities of docs that are read at once, the windows of a long one some at a
        time.

        docs (list[Doc]): The docs; at least one has tokens.
        RETURNS (list[list[Entity]]): Each doc's entities, in order of the text.
        """
        windows = self._find_windows(docs)
        inputs = self._make_inputs(docs, windows, self.decoder)
        found = [
            self._read_windows(self.model.predict(some), some.windows)
            for some in split_windows(self.model, inputs, PREDICTED_TOKENS)
        ]
        return self._collect(windows, found)

    def class_probabilities(
        self, docs: Sequence[Doc], entities: Sequence[Sequence[Entity]]
    ) -> list[NDArray[numpy.float32]]:
        """Tell how likely spans are to be an entity of each label, and to be none.

        They are read from the relations, whichever decoder is set: the probability that the span
        begins and ends where an entity does, times the lowest one of its links, is shared by the
        types, whose scores are independent of each other: see `exclude_each_other`. With one type,
        it is the score of decoder "relations". A span that no window holds as a whole is none.

        docs (Sequence[Doc]): The docs.
        entities (Sequence[Sequence[Entity]]): The spans of each doc, also discontinuous ones; their
            labels are not read.
        RETURNS (list[NDArray[numpy.float32]]): For each doc a row for each span: see
            `EntityComponent.class_probabilities`.
        RAISES (NotImplementedError): If relations are not learned.
        RAISES (ValueError): If a span ends outside its doc.
        """
        self._require_initialized()
        if not self._learns_relations:
            raise NotImplementedError(
                f"{self.name} has no probabilities of the labels of a span: they are read from the "
                f"relations, which are not learned."
            )
        return classify_entities(docs, entities, len(self.labels), self._classify)

    def _classify(
        self, docs: list[Doc], entities: Sequence[Sequence[Entity]]
    ) -> NDArray[numpy.float64]:
        windows = self._find_windows(docs)
        places: list[int] = []  # The number of each span's window, or -1.
        spans: list[Fragments] = []
        n_windows = 0
        for own, given in zip(windows, entities, strict=True):
            for entity, place in zip(given, own.locate(given).tolist(), strict=True):
                places.append(n_windows + place if place >= 0 else -1)
                spans.append(shift_fragments(entity.fragments, -int(own.starts[place])))
            n_windows += len(own)
        at = numpy.array(places, dtype=numpy.int64)
        result = numpy.zeros((len(spans), len(self.labels)))
        first = 0
        inputs = self._make_inputs(docs, windows, "relations")
        for some in split_windows(self.model, inputs, PREDICTED_TOKENS):
            n_some = len(some.windows)
            asked = numpy.flatnonzero((at >= first) & (at < first + n_some))
            if len(asked):
                cells = self.model.predict(some).cells
                sets = TokenSets.of([[(spans[i], 0)] for i in asked.tolist()])
                sets = replace(sets, rows=at[asked] - first)
                sizes = numpy.array(some.windows, dtype=numpy.int64)
                whole, types = _score_sets(cells, sets, sizes)
                result[asked] = whole[:, None] * exclude_each_other(types)
            first += n_some
        return result

    def decode(self, docs: Sequence[Doc], scores: Seq2SeqScores) -> list[list[Entity]]:
        """Read the entities that were generated, or that the relations stand for.

        docs (Sequence[Doc]): The docs; at least one has tokens.
        scores (Seq2SeqScores): The model's output.
        RETURNS (list[list[Entity]]): Each doc's entities, in order of the text.
        """
        windows = self._find_windows(docs)
        sizes = [n for own in windows for n in (own.ends - own.starts).tolist()]
        return self._collect(windows, [self._read_windows(scores, sizes)])

    def _read_windows(self, scores: Seq2SeqScores, sizes: Sequence[int]) -> Found:
        """The entities of windows of some sizes."""
        windows = numpy.array(sizes, dtype=numpy.int64)
        decoder, threshold = self.decoder, self.cfg["threshold"]
        if decoder == "relations":
            return Found([self._read_relations(scores, windows, threshold)], len(sizes))
        found, values = self._read_sequences(scores)
        if decoder == "generate":
            return Found([(found, values)], len(sizes))
        whole, types = _score_sets(scores.cells, found, windows)
        of_relations = whole * types[numpy.arange(len(found)), found.types]
        # What was not generated has half the score of its relations; if it was, it is found twice.
        others, other_values = self._read_relations(scores, windows, 2 * threshold)
        parts = [(found, (values + of_relations) / 2), (others, other_values / 2)]
        return Found(parts, len(sizes))

    def _collect(self, windows: Sequence[Windows], found: Iterable[Found]) -> list[list[Entity]]:
        """Each doc's entities, of what was found in all docs' windows, some at a time."""
        starts = [start for own in windows for start in own.starts.tolist()]
        places = [(row, i) for row, own in enumerate(windows) for i in range(len(own))]
        names = self.labels
        entities: list[list[Entity]] = [[] for _ in windows]
        numbers: list[list[int]] = [[] for _ in windows]
        first = 0
        for some in found:
            for sets, values in some.parts:
                for window, label, fragments, value in zip(
                    (sets.rows + first).tolist(),
                    sets.types.tolist(),
                    sets.fragments(),
                    values.tolist(),
                    strict=True,
                ):
                    if value >= self.cfg["threshold"]:
                        row, number = places[window]
                        moved = shift_fragments(fragments, starts[window])
                        entities[row].append(Entity(names[label], moved, min(1.0, value)))
                        numbers[row].append(number)
            first += some.n_windows
        if self.decoder != "both" and not any(own.has_overlap for own in windows):
            return entities  # Each once, and in order.
        ranks = {label: rank for rank, label in enumerate(names)}
        merged = (
            own.merge(of_doc, numpy.array(of, dtype=numpy.int64))
            for own, of_doc, of in zip(windows, entities, numbers, strict=True)
        )
        return [
            sorted(of_doc, key=lambda e: (list_tokens(e.fragments), ranks[e.label]))
            for of_doc in merged
        ]

    def _read_sequences(self, scores: Seq2SeqScores) -> tuple[TokenSets, NDArray[Any]]:
        """The entities of generated sequences, and the product of their symbols' probabilities."""
        decoded = decode_sequences(scores.symbols.cpu().numpy(), len(self.labels))
        sums = numpy.cumsum(scores.log_probs.cpu().numpy().astype(numpy.float64), axis=1)
        sums = numpy.pad(sums, ((0, 0), (1, 0)))
        found = decoded.entities
        behind = decoded.steps + 1
        values = sums[found.rows, behind] - sums[found.rows, decoded.steps - found.sizes]
        return found, numpy.exp(values)

    def _read_relations(
        self, scores: Seq2SeqScores, windows: IntArray, threshold: float
    ) -> tuple[TokenSets, NDArray[Any]]:
        """The entities of grids, and their scores."""
        threshold = max(threshold, LOWEST_LINK)
        relations = scores.cells[:, :N_RELATIONS].softmax(1)
        pairs, links = (
            (relations[:, relation] >= threshold).nonzero()[:, 0]
            for relation in (BEGIN_END, INSIDE)
        )
        types = scores.cells[pairs, N_RELATIONS:].sigmoid() * relations[pairs, BEGIN_END, None]
        inside = relations[links, INSIDE]
        arrays = [part.cpu().numpy() for part in (pairs, types, links, inside)]
        # A pair has its two relations on either side of the diagonal.
        offsets = count_cells(windows)
        for kind in (0, 1):
            places = arrays[2 * kind]
            own = numpy.searchsorted(offsets, places, side="right") - 1
            i, j = numpy.divmod(places - offsets[own], windows[own])
            kept = i <= j if kind == 0 else i > j
            arrays[2 * kind], arrays[2 * kind + 1] = places[kept], arrays[2 * kind + 1][kept]
        return decode_relations(CellScores(*arrays), windows, threshold)


def _score_sets(
    cells: Tensor, entities: TokenSets, windows: IntArray
) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
    """Scores of sets of tokens as entities: of their begin and end and of the links, (n_sets,), and
    of each type, (n_sets, n_types). Their products are those of decoder "relations".
    """
    *places, owners = locate_cells(entities, windows)
    pairs, links = (cells[torch.from_numpy(own).to(cells.device)].cpu().double() for own in places)
    inside = links[:, :N_RELATIONS].softmax(1)[:, INSIDE]
    lowest = numpy.ones(len(entities))
    numpy.minimum.at(lowest, owners, inside.numpy())
    begin_end = pairs[:, :N_RELATIONS].softmax(1)[:, BEGIN_END]
    return begin_end.numpy() * lowest, pairs[:, N_RELATIONS:].sigmoid().numpy()
