"""What excludes what among a closed-form editor's options is said when it is made, and not at its first edit."""

import pytest

from lightning_edit.algebra import L1Penalty
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.editors.alphaedit import AlphaEdit
from lightning_edit.editors.estate import Declaration
from lightning_edit.errors import EditError

PENALTY = L1Penalty(weight=0.1)


def declared(name: str, **options: object) -> Declaration:
    """What an editor is declared to be."""
    editor = get_editor(name, **options)
    assert isinstance(editor, ClosedFormEditor)
    return editor._estate.declaration


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("rome", {"deployment": "none", "history": "kept"}, "deployment='none' with noise 0"),
        ("rome", {"deployment": "none", "history": "latest"}, "expected history='absorbed' with one pass"),
        ("rome", {"deployment": "none", "passes": 2}, "cannot take one out"),
        ("rect", {"on": "rome", "aligned": True, "deployment": "none"}, "deployment='none' with noise 0"),
        ("emmet", {"noise": 0.0, "deployment": "none", "history": "kept"}, "deployment='none' with noise 0"),
        ("rome", {"history": "kept", "conflicts": "append"}, "conflicts='append' with noise 0"),
        ("memit", {"penalty": PENALTY, "deployment": "none"}, "looks at the whole update"),
        ("l1", {"deployment": "none"}, "looks at the whole update"),
        ("l1", {"projected": True}, "prior of full rank"),
        ("alphaedit", {"penalty": PENALTY}, "prior of full rank"),
        ("memorize_latest", {"penalty": PENALTY, "form": "simplified"}, "prior of full rank"),
        ("memorize_latest", {"penalty": PENALTY, "projected": True}, "prior of full rank"),
        ("rome", {"penalty": PENALTY}, "penalty with noise 0"),
        ("memorize_latest", {"history": "kept"}, "the form decides"),
        ("alphaedit", {"prior_weight": 5.0}, r"prior_weight=5.0: .*use MEMIT with projected=True"),
        ("alphaedit", {"ridge": 1.0}, r"ridge=1.0: .*expected l2"),
        ("rect", {"original_keys": True}, "expected on='rome'"),
        ("rect", {"mom2_adjustment": False}, "expected on='rome'"),
        ("rect", {"on": "rome", "aligned": False, "history": "kept"}, "contradict each other"),
    ],
)
def test_what_has_no_solution_is_refused_at_once(name: str, options: dict, words: str) -> None:
    with pytest.raises(EditError, match=words):
        get_editor(name, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rome", {"deployment": "none"}),
        ("rome", {"conflicts": "append"}),
        ("emmet", {"deployment": "none", "history": "kept"}),
        ("emmet", {"conflicts": "append", "history": "kept"}),
        ("memit", {"penalty": PENALTY}),
        ("memit", {"projected": True, "prior_weight": 5.0}),
        ("memorize_latest", {"penalty": PENALTY}),
        ("memit", {"deployment": "none", "passes": 2}),
    ],
)
def test_what_has_one_is_not(name: str, options: dict) -> None:
    assert declared(name, **options).history in ("kept", "latest", "absorbed")


def test_the_class_itself_says_where_an_option_is_found() -> None:
    with pytest.raises(EditError, match="MEMIT with projected=True"):
        AlphaEdit(prior_weight=5.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("absorbed", "none")),
        ({"history": "kept"}, ("kept", "feedback")),
        ({"history": "absorbed"}, ("absorbed", "none")),
        ({"aligned": True}, ("kept", "feedback")),
        ({"aligned": True, "history": "kept"}, ("kept", "feedback")),
    ],
)
def test_on_rome_alignment_follows_the_history(options: dict, expected: tuple[str, str]) -> None:
    found = declared("rect", on="rome", **options)
    assert (found.history, found.deployment.mode) == expected
