"""Every name that the package registers resolves, with nothing else imported."""

import subprocess
import sys
from importlib.metadata import distribution

import pytest
import spacy

POINTS = [
    (point.group, point.name)
    for point in distribution("spacy-mtlner").entry_points
    if point.group.startswith("spacy_")
]
EXPECTED = {
    ("spacy_factories", "crf_ner"),
    ("spacy_factories", "multitask_crf_ner"),
    ("spacy_factories", "pointer_ner"),
    ("spacy_factories", "seq2seq_ner"),
    ("spacy_factories", "span_ner"),
    ("spacy_architectures", "spacy_mtlner.CRFTagger.v1"),
    ("spacy_architectures", "spacy_mtlner.MultiTaskCRF.v1"),
    ("spacy_architectures", "spacy_mtlner.PointerTagger.v1"),
    ("spacy_architectures", "spacy_mtlner.Seq2Seq.v1"),
    ("spacy_architectures", "spacy_mtlner.SpanClassifier.v1"),
    ("spacy_architectures", "spacy_mtlner.TransformerEncoder.v1"),
    ("spacy_architectures", "spacy_mtlner.CharacterEmbed.v1"),
    ("spacy_architectures", "spacy_mtlner.TransformerModel.v1"),
    ("spacy_architectures", "spacy_mtlner.Tok2VecTransformer.v1"),
    ("spacy_span_getters", "spacy_mtlner.safe_spans.v1"),
    ("spacy_misc", "spacy_mtlner.boundary_suggester.v1"),
    ("spacy_scorers", "spacy_mtlner.entity_scorer.v1"),
    ("spacy_readers", "spacy_mtlner.Corpus.v1"),
    ("spacy_readers", "spacy_mtlner.GoldCandidates.v1"),
    ("spacy_readers", "spacy_mtlner.TaskCorpora.v1"),
    ("spacy_callbacks", "spacy_mtlner.pseudo_label.v1"),
    ("spacy_cli", "mtlner"),
}


def test_all_names_are_registered() -> None:
    assert set(POINTS) == EXPECTED


@pytest.mark.parametrize(("group", "name"), POINTS)
def test_registered_names_resolve(group: str, name: str) -> None:
    if group == "spacy_factories":
        config = {"tasks": {"mtlner": "main"}} if name == "multitask_crf_ner" else {}
        assert spacy.blank("en").add_pipe(name, config=config)
    else:
        assert spacy.util.registry.get(group.removeprefix("spacy_"), name)


def test_add_pipe_needs_no_import() -> None:
    code = "import spacy; print(spacy.blank('en').add_pipe('crf_ner').name)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "crf_ner", result.stderr
