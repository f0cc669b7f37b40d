"""Texts beside the docs that a component's own encoder reads: descriptions of types, names of known
entities. The encoder may be inline, or anywhere in the pipeline behind a listener.
"""

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from spacy.language import Language
from spacy.pipeline import Tok2Vec
from spacy.tokens import Doc
from spacy.vocab import Vocab
from thinc.api import Model, Optimizer, Ragged

from spacy_mtlner.models.torch_layer import Rows, is_listener
from spacy_mtlner.pipeline.base import EntityComponent


class PipelineRef:
    """A weak reference to a pipeline that can be pickled.

    nlp (Optional[Language]): The pipeline.
    """

    def __init__(self, nlp: Language | None) -> None:
        self._ref = weakref.ref(nlp) if nlp is not None else None

    def __call__(self) -> Language | None:
        return self._ref() if self._ref is not None else None

    def __reduce__(self) -> tuple[Any, ...]:
        return PipelineRef, (self(),)


class SideTexts:
    """Keeps what a component's side texts are for its encoder, until that or the texts change; only
    where other weights are loaded into an encoder that it listens to, `forget` must be called.

    nlp (Language): The pipeline, whose tokenizer and encoder read the texts.
    component (Any): The component, whose model has the reference "tok2vec".
    make_docs (Callable[[Language], list[Doc]]): Makes the texts' docs.
    what (str): What the texts are, for error messages.
    remedy (str): How to do without, as the end of a sentence.
    """

    def __init__(
        self,
        nlp: Language,
        component: Any,
        make_docs: Callable[[Language], list[Doc]],
        *,
        what: str,
        remedy: str,
    ) -> None:
        self.component = component
        self.make_docs = make_docs
        self.what = what
        self.remedy = remedy
        self._pipelines = [PipelineRef(nlp)]
        self._foreign: Vocab | None = None  # Of docs that are of none of the pipelines.
        # Each with what it was made by, and replaced as a whole: other threads read them.
        self._docs: tuple[list[Doc], PipelineRef] | None = None
        self._encoded: tuple[Rows, PipelineRef, tuple[Any, Any]] | None = None

    def forget(self, *, is_encoder_alone: bool = False) -> None:
        """Have the texts encoded again when they are needed next.

        is_encoder_alone (bool): Whether the encoder alone has changed, and not the texts.
        """
        self._encoded = None
        if not is_encoder_alone:
            self._docs = None

    def docs(self, vocab: Vocab) -> list[Doc]:
        """Make the texts' docs, or take those that are kept.

        vocab (Vocab): That of the docs which the texts are for.
        RETURNS (list[Doc]): The docs.
        """
        nlp = self.find_pipeline(vocab)
        kept = self._docs
        if kept is None or kept[1]() is not nlp:
            kept = self.make_docs(nlp), PipelineRef(nlp)
            # At the end of a memory zone their words are freed.
            if not nlp.vocab.in_memory_zone:  # type: ignore[attr-defined]
                self._docs = kept
        return kept[0]

    def predict(self, vocab: Vocab) -> Rows:
        """Encode the texts, or take what is kept of them.

        vocab (Vocab): That of the docs which the texts are for.
        RETURNS (Rows): The vectors of each text's tokens.
        """
        nlp = self.find_pipeline(vocab)
        # Another pipeline, or another encoder in place of a listener, reads them otherwise; and one
        # that another component trains, which feeds all its listeners at each update.
        tok2vec = self.component.model.get_ref("tok2vec")
        listener = _find_listener(tok2vec)
        encoder = (tok2vec, listener and listener.state[1])
        kept = self._encoded
        if (
            kept is None
            or kept[1]() is not nlp
            or any(a is not b for a, b in zip(encoder, kept[2], strict=True))
        ):
            rows = self._make_encoder(nlp, vocab).predict()
            self._encoded = kept = rows, PipelineRef(nlp), encoder
        return kept[0]

    def begin_update(self, vocab: Vocab) -> tuple[Rows, Callable[[Rows], None]]:
        """Encode the texts for an update.

        vocab (Vocab): That of the docs which the texts are for.
        RETURNS (tuple[Rows, Callable[[Rows], None]]): The vectors of each text's tokens, and the
            callback that takes their gradient to the encoder.
        """
        self._encoded = None
        return self._make_encoder(self.find_pipeline(vocab), vocab).begin_update()

    def _make_encoder(self, nlp: Language, vocab: Vocab) -> "SideTextEncoder":
        docs = self.docs(vocab)
        return SideTextEncoder(nlp, self.component, docs, what=self.what, remedy=self.remedy)

    def prefer(self, nlp: Language | None) -> None:
        """Prefer a pipeline to others of the same vocab that the component is in.

        nlp (Optional[Language]): The pipeline, if any.
        """
        self._pipelines = [PipelineRef(nlp), *(ref for ref in self._pipelines if ref() is not nlp)]

    def find_pipeline(self, vocab: Vocab) -> Language:
        """Find the pipeline that the component is in; of several, the one of the docs' vocab.

        vocab (Vocab): The docs' vocab.
        RETURNS (Language): The pipeline.
        RAISES (ValueError): If the component is in none.
        """
        known = [nlp for ref in self._pipelines if (nlp := ref()) is not None and self._is_in(nlp)]
        is_foreign = bool(known) and vocab is self._foreign
        if not is_foreign and all(nlp.vocab is not vocab for nlp in known):
            # A component that was added with `source=` is not told so.
            found = filter(self._is_in, _find_pipelines(self.component))
            known += [nlp for nlp in found if all(nlp is not other for other in known)]
            if not known:
                message = f"is in no pipeline, whose tokenizer its {self.what} need."
                raise ValueError(f"{self.component.name} {message}")
            self._pipelines = [PipelineRef(nlp) for nlp in known]
            if all(nlp.vocab is not vocab for nlp in known):
                self._foreign = vocab
        return next((nlp for nlp in known if nlp.vocab is vocab), known[0])

    def _is_in(self, nlp: Language) -> bool:
        return any(pipe is self.component for _, pipe in nlp.components)


def _find_pipelines(component: Any) -> list[Language]:
    """The pipelines whose list of names and components holds a component."""
    # Not among all objects there are: some are half made by other threads.
    holders = [component]
    for kind in (tuple, list):
        holders = [o for o in gc.get_referrers(*holders) if type(o) is kind]
    owners = gc.get_referrers(*holders)
    owners += gc.get_referrers(*(o for o in owners if type(o) is dict))
    return [o for o in owners if issubclass(type(o), Language)]


class Listener:
    """A layer that a tok2vec component feeds, or one of spacy-transformers.

    layer (Any): The layer.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @property
    def upstream_name(self) -> str:
        """RETURNS (str): The name of the component that feeds it, or "*" for any."""
        return self.layer.upstream_name

    @property
    def state(self) -> tuple[Any, ...]:
        """RETURNS (tuple[Any, ...]): The id of a batch, its vectors and the callback for their
        gradient; of None where it was not fed yet.
        """
        return self.layer._batch_id, self.layer._outputs, self.layer._backprop

    def receive(self, *state: Any) -> None:
        """Feed it.

        *state (Any): As `state`.
        """
        self.layer.receive(*state)

    def get_batch_id(self, docs: Sequence[Doc]) -> int:
        """Get the id by which it knows a batch.

        docs (Sequence[Doc]): The batch.
        RETURNS (int): The id.
        """
        return self.layer.get_batch_id(docs)


class CuratedListener(Listener):
    """A listener of spacy-curated-transformers: a plain layer, with its state among its attributes.

    layer (Any): The layer.
    """

    def __init__(self, layer: Any) -> None:
        from spacy_curated_transformers.models.listeners import ListenerStateUtils

        super().__init__(layer)
        self.utils = ListenerStateUtils

    @property
    def upstream_name(self) -> str:
        """RETURNS (str): As of `Listener`."""
        return self.utils.get_upstream_name(self.layer)

    @property
    def state(self) -> tuple[Any, ...]:
        """RETURNS (tuple[Any, ...]): As of `Listener`."""
        utils, layer = self.utils, self.layer
        return utils.get_batch_id(layer), utils.get_output(layer), utils.get_backprop(layer)

    def receive(self, *state: Any) -> None:
        """Feed it.

        *state (Any): As `state`.
        """
        self.utils.receive(self.layer, *state)

    def get_batch_id(self, docs: Sequence[Doc]) -> int:
        """Get the id by which it knows a batch.

        docs (Sequence[Doc]): The batch.
        RETURNS (int): The id.
        """
        return self.utils.calculate_batch_id(docs)

    @property
    def is_wrapped(self) -> bool:
        """RETURNS (bool): Whether replace_listeners gave it an encoder of its own."""
        return not self.utils.use_doc_annotations_for_prediction(self.layer)


def _find_listener(tok2vec: Model) -> Listener | None:
    """The listener in a tok2vec layer, if another component feeds it."""
    for layer in tok2vec.walk():
        if hasattr(layer, "receive"):
            return Listener(layer)
        if is_listener(layer):
            curated = CuratedListener(layer)
            return None if curated.is_wrapped else curated
    return None


class SideTextComponent(EntityComponent):
    """Base of the components with side texts, which are encoded anew when the component changes. A
    subclass sets `side_texts` when it is made.
    """

    side_texts: SideTexts

    def finish_update(self, sgd: Optimizer) -> None:
        """Change the weights by their gradients, the head's at its own learning rate.

        sgd (Optimizer): The optimizer.
        """
        # With annotating_components the texts were encoded since the update.
        self.side_texts.forget(is_encoder_alone=True)
        super().finish_update(sgd)

    def use_params(self, params: dict[Any, Any]) -> Iterator[None]:
        """Use other weights for a while, as `Language.use_params` does.

        params (dict[Any, Any]): The weights.
        YIELDS (None): Once, while they are in use.
        """
        self.side_texts.forget(is_encoder_alone=True)
        yield from super().use_params(params)
        self.side_texts.forget(is_encoder_alone=True)

    def from_disk(self, path: Any, *, exclude: Iterable[str] = ()) -> Any:
        """Load the component.

        path (Any): Its folder.
        exclude (Iterable[str]): What not to load.
        RETURNS (SideTextComponent): Itself.
        """
        self.side_texts.forget()
        super().from_disk(path, exclude=exclude)
        return self

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> Any:
        """Load the component.

        bytes_data (bytes): What `to_bytes` returned.
        exclude (Iterable[str]): What not to load.
        RETURNS (SideTextComponent): Itself.
        """
        self.side_texts.forget()
        super().from_bytes(bytes_data, exclude=exclude)
        return self


class SideTextEncoder:
    """Has a component's encoder read docs beside those of the batch.

    nlp (Language): The pipeline that the component is in.
    component (Any): The component.
    docs (Sequence[Doc]): The docs.
    what (str): What the docs are, for error messages.
    remedy (str): How to do without, as the end of a sentence.
    RAISES (ValueError): If the component listens to an encoder that the pipeline does not have.
    """

    def __init__(
        self, nlp: Language, component: Any, docs: Sequence[Doc], *, what: str, remedy: str
    ) -> None:
        self.name = component.name
        self.what = what
        self.remedy = remedy
        self.tok2vec = component.model.get_ref("tok2vec")
        self.docs = list(docs)
        self.listener = _find_listener(self.tok2vec)
        self.upstream: Any = None
        if self.listener is not None:
            self.upstream = self._find_upstream(nlp, component)

    def _find_upstream(self, nlp: Language, component: Any) -> Any:
        pipe: Any
        assert self.listener is not None
        layer = self.listener.layer
        for _, pipe in nlp.components:
            if pipe is component:
                break
            if not hasattr(pipe, "listener_map"):
                continue
            is_linked = any(x is layer for x in pipe.listener_map.get(self.name, ()))
            if not is_linked:  # spaCy links only components that are enabled at that time.
                pipe.find_listeners(component)
                if not pipe.remove_listener(layer, self.name):
                    continue
            return pipe
        raise ValueError(
            f"{self.name} listens to {self.listener.upstream_name!r}, but no component of the "
            f"pipeline feeds it: put a tok2vec or transformer component of that name before it."
        )

    def predict(self) -> Rows:
        """RETURNS (Rows): The docs' vectors."""
        if self.upstream is not None:
            list(self.upstream.pipe(self.docs))
        return self.tok2vec.predict(self.docs)

    def begin_update(self) -> tuple[Rows, Callable[[Rows], None]]:
        """RETURNS (tuple[Rows, Callable[[Rows], None]]): The docs' vectors, and the callback that
        takes their gradient to the encoder.
        """
        if self.upstream is None:
            self._refuse_scaler(self.tok2vec, "its own encoder")
            return self.tok2vec.begin_update(self.docs)
        listener = self.listener
        assert listener is not None
        # A curated transformer has a setting for it, and runs in updates all the same.
        is_frozen = listener.state[0] is None or getattr(self.upstream, "frozen", False)
        if is_frozen:
            return self.predict(), lambda d_rows: None
        outputs, backprop_outputs = self._run_upstream()
        state = listener.get_batch_id(self.docs), outputs, backprop_outputs
        with _feeding(listener, *state):
            rows, backprop_rows = self.tok2vec.begin_update(self.docs)

        def backprop(d_rows: Rows) -> None:
            # A transformer's listener looks up its callback only then.
            with _feeding(listener, *state):
                backprop_rows(d_rows)

        return rows, backprop

    def _run_upstream(self) -> tuple[Any, Callable[..., Any]]:
        """What the upstream component's model passes to its listeners, and takes back."""
        model = self.upstream.model
        self._refuse_scaler(model, repr(self.upstream.name))
        outputs, backprop = model.begin_update(self.docs)
        if isinstance(self.upstream, Tok2Vec):
            return outputs, backprop
        if hasattr(outputs, "unsplit_by_doc"):  # spacy-transformers

            def backprop_docs(d_docs: Any) -> Any:
                return backprop(outputs.unsplit_by_doc([list(d.tensors) for d in d_docs]))

            return outputs.doc_data, backprop_docs
        if hasattr(outputs, "all_outputs"):  # spacy-curated-transformers

            def backprop_layers(d_docs: Any, outputs_to_backprop: Sequence[int]) -> Any:
                # Zeros for the layers that the listener does not read.
                alloc = self.upstream.model.ops.alloc_f
                d_outputs = [
                    [Ragged(alloc(layer.dataXd.shape), layer.lengths) for layer in layers]
                    for layers in outputs.all_outputs
                ]
                for d_layers, d_doc in zip(d_outputs, d_docs, strict=True):
                    for i in outputs_to_backprop:
                        d_layers[i] = d_doc[i]
                return backprop(d_outputs)

            return outputs, backprop_layers
        raise ValueError(
            f"{self.name} cannot learn {self.what} over {self.upstream.name!r}, a "
            f"{type(self.upstream).__name__}: use a tok2vec, transformer or curated_transformer "
            f"component, freeze that one, or {self.remedy}."
        )

    def _refuse_scaler(self, model: Model, name: str) -> None:
        for shim in (shim for node in model.walk() for shim in node.shims):
            if getattr(getattr(shim, "_grad_scaler", None), "_enabled", False):
                raise ValueError(
                    f"{self.name} cannot learn {self.what} over {name} with a gradient scaler, "
                    f"which would unscale gradients twice: set mixed_precision = false or its "
                    f"grad_scaler_config's enabled = false."
                )


@contextmanager
def _feeding(listener: Listener, *state: Any) -> Iterator[None]:
    """Feed a listener with other docs; it gets back the batch's data after that."""
    kept = listener.state
    listener.receive(*state)
    try:
        yield
    finally:
        listener.receive(*kept)
