"""What an editor refuses, and how it says so; statistics and how they come in; names in the registry."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_edit.algebra import KeyCovariance, save_statistics
from lightning_edit.editors import MEMIT, ClosedFormEditor, get_editor
from lightning_edit.editors.contexts import DEFAULT_CONTEXTS, resolve_contexts
from lightning_edit.editors.presets import choose_layers, choose_preset
from lightning_edit.editors.registry import option_names
from lightning_edit.errors import EditError, RequestError, SiteError, StateError, StatisticsError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics, expected_identity
from lightning_edit.requests import EditRequest
from tests.editors.conftest import STRONG, fact, facts, gap, says, solutions

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]


class Mine(MEMIT):
    """A user's own editor, with an option of its own."""

    def __init__(self, spice: float = 1.0, **options: object) -> None:
        self.spice = spice
        super().__init__(**options)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- registry
def test_names_and_paths() -> None:
    assert type(get_editor("MEMIT")) is MEMIT
    mine = get_editor(f"{__name__}.Mine", spice=2.0, aligned=False, clamp=1.5)
    assert isinstance(mine, Mine)
    assert (mine.spice, mine.history) == (2.0, "absorbed")
    assert option_names(Mine) is not None
    assert {"spice", "prior_weight", "clamp", "drift"} <= set(option_names(Mine) or ())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("memmit", {}, "did you mean 'memit'"),
        ("nobody", {}, "Expected one of memit"),
        ("no.such.Class", {}, "cannot find"),
        ("lightning_edit.errors.EditError", {}, "no editor class"),
        ("memit", {"clmap": 1.0}, "did you mean 'clamp'"),
        ("memit", {"drift": "adapt"}, "expected one of 'adopt'"),
        ("memit", {"history": "kept", "aligned": False}, "contradict"),
        ("memit", {"clamp": 0.0}, "clamp"),
        ("memit", {"bare_weight": 0.0}, "bare_weight"),
        ("memit", {"preserve": ["He was born in"]}, "in the subject's place"),
        ("alphaedit", {"nullspace_threshold": 0.1, "nullspace_energy": 0.1}, "two rules"),
        ("memorize_latest", {"form": "half"}, "simplified"),
        ("memorize_latest", {"history": "kept"}, "form decides"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(EditError, match=words):
        get_editor(name, **options)


# -------------------------------------------------------------------------------------------------------- statistics
def test_no_statistics_no_edit(make_lm: Make) -> None:
    lm = make_lm()
    editor = get_editor("memit", layers=[1])
    assert not editor.prepared
    with pytest.raises(StatisticsError, match=r"keys of layers \[1\].*prepare"):
        editor.edit(lm, facts(1))


def test_statistics_from_file_memory_or_corpus(make_lm: Make, corpus: list[str], tmp_path: Path) -> None:
    found = []
    for source in ("file", "memory", "corpus"):
        lm = make_lm()
        statistics = collect_statistics(lm, corpus)
        save_statistics(tmp_path / "keys.safetensors", statistics, statistics.identity)
        editor = get_editor("memit", layers=[0, 1], prior_weight=5.0, **STRONG)
        given = {"file": tmp_path / "keys.safetensors", "memory": statistics, "corpus": None}[source]
        editor.prepare(lm, statistics=given, corpus=corpus if source == "corpus" else None)
        editor.edit(lm, facts(2))
        found.append(solutions(editor))
        saved = editor.state_dict()
        assert (saved["sites"]["0"]["ledger"]["prior"] is None) == (source == "file")
    assert gap(found[0], found[1]) == 0
    assert gap(found[0], found[2]) < 1e-12


def test_state_with_a_statistics_file_needs_the_same_file(make_lm: Make, corpus: list[str], tmp_path: Path) -> None:
    lm = make_lm()
    path = tmp_path / "keys.safetensors"
    statistics = collect_statistics(lm, corpus)
    save_statistics(path, statistics, statistics.identity)
    editor = get_editor("memit", layers=[0], prior_weight=5.0, **STRONG)
    editor.prepare(lm, statistics=path)
    editor.edit(lm, facts(1))
    state = editor.state_dict()
    late = get_editor("memit", layers=[0], prior_weight=5.0, **STRONG)
    late.load_state_dict(state)
    late.edit(lm, facts(1, 1))
    assert says(lm, fact(1))
    other = collect_statistics(lm, corpus[:20])
    save_statistics(path, other, other.identity)
    late = get_editor("memit", layers=[0], prior_weight=5.0, **STRONG)
    late.load_state_dict(state)
    with pytest.raises(StateError, match="same moments"):
        late.edit(lm, facts(1, 1))
    path.unlink()
    late = get_editor("memit", layers=[0], prior_weight=5.0, **STRONG)
    late.load_state_dict(state)
    with pytest.raises(StatisticsError, match="no statistics file"):
        late.edit(lm, facts(1, 1))


def test_wrong_statistics_are_refused(make_lm: Make, moments: Moments, tmp_path: Path) -> None:
    lm = make_lm()
    editor = get_editor("memit", layers=[0, 1])
    with pytest.raises(StatisticsError, match=r"not of \[1\]"):
        editor.prepare(lm, statistics={0: moments(lm)[0]})
    with pytest.raises(StatisticsError, match="length 3"):
        editor.prepare(lm, statistics={0: KeyCovariance(3), 1: KeyCovariance(3)})
    other = make_lm("gpt2")
    save_statistics(tmp_path / "other.safetensors", moments(other), expected_identity(other))
    with pytest.raises(StatisticsError, match="something else"):
        editor.prepare(lm, statistics=tmp_path / "other.safetensors")
    with pytest.raises(StatisticsError, match="both"):
        editor.prepare(lm, statistics=moments(lm), corpus=["text"])


def test_new_statistics_solve_again(
    make_lm: Make, make_editor: MakeEditor, moments: Moments, corpus: list[str]
) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    editor.edit(lm, facts(2))
    before = solutions(editor)
    clean = make_lm()
    editor.prepare(lm, statistics=moments(clean))  # the same: nothing to do
    other = dict(collect_statistics(clean, corpus[:20]))
    with pytest.raises(StateError, match="reprior"):
        editor.prepare(lm, statistics=other)
    assert gap(solutions(editor), before) == 0
    editor.reprior(lm, statistics=other)
    assert gap(solutions(editor), before) > 1e-6
    assert torch.equal(lm.projection(0).weight.data, solutions(editor)[0])
    assert all(says(lm, request) for request in facts(2))


# ---------------------------------------------------------------------------------------------------------- requests
def test_bad_requests_are_named(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    cases = [
        ([EditRequest("lost", "It is in", "Rome")], "'lost' has no subject"),
        ([fact(0), fact(0)], "second time"),
        ([fact(0), fact(0, "is", id="b")], "wants 'is'"),
        ([fact(0, id="long", prompt="the mother of Ann Smith " + 70 * "of the ")], "'long' takes"),
    ]
    for batch, words in cases:
        with pytest.raises(RequestError, match=words):
            editor.edit(lm, batch)
    editor.edit(lm, facts(1))
    with pytest.raises(RequestError, match="applied already"):
        editor.edit(lm, facts(1))
    assert len(editor.requests) == 1


# -------------------------------------------------------------------------------------------------- choices for a model
def test_contexts_are_fixed_given_or_sampled_with_a_seed(make_lm: Make) -> None:
    lm = make_lm()
    state = torch.random.get_rng_state()
    assert resolve_contexts(lm, None, 0) == DEFAULT_CONTEXTS
    assert resolve_contexts(lm, ["So. "], 0) == ("So. ",)
    sampled = resolve_contexts(lm, 3, 0)
    assert len(set(sampled)) == 3
    assert sampled == resolve_contexts(lm, 3, 0)
    assert sampled != resolve_contexts(lm, 3, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(EditError, match="list of texts"):
        resolve_contexts(lm, "The ", 0)  # type: ignore[arg-type]


def test_presets_by_name_then_shape(make_lm: Make) -> None:
    lm = make_lm()
    assert choose_preset(lm).name == "default"
    assert choose_preset(lm, "gpt2-xl").prior_weight == 20_000
    with pytest.raises(EditError, match="no preset 'gpt5'"):
        choose_preset(lm, "gpt5")
    with pytest.raises(SiteError, match="layer 13"):
        choose_layers(lm, None, choose_preset(lm, "gpt2-xl"))
    for given in ([], [1, 1]):
        with pytest.raises(EditError, match="different layers"):
            choose_layers(lm, given, choose_preset(lm))
    assert choose_layers(lm, [2, 0], choose_preset(lm)) == (0, 2)
