"""Options of all editors of a leaderboard: each gets those that it knows, and is taught as it will be asked."""

from typing import Any

import pytest

from lightning_edit.data.world import World, world_requests
from lightning_edit.editors.registry import EDITORS
from lightning_edit.editors.retrieval.ike import Example
from lightning_edit.errors import EditError
from lightning_edit.evaluation import AnswerOptions
from lightning_edit.jobs.leaderboard_entries import Entry, read_entries
from lightning_edit.requests import EditRequest
from lightning_edit.runner.recipe import Recipe, load_recipe

PAPERS = ["leaderboard", "leaderboard_paper", "leaderboard_events", "fairness"]
CHAT = AnswerOptions(chat=True, system="Be brief.")


def options(editors: dict[str, Any], shared: dict[str, Any], answers: AnswerOptions) -> dict[str, dict[str, Any]]:
    return {entry.label: entry.declared.options for entry in read_entries(editors, shared, answers)}


def published(name: str) -> Recipe:
    return load_recipe(name) if name == "leaderboard_paper" else load_recipe(name).as_published()


def test_editors_are_taught_in_the_chat_that_they_are_asked_in() -> None:
    told = {"chat": True, "system": "Be brief."}
    editors = {
        "grace": {"editor": "grace", "layer": 1},
        "bare": {"editor": "grace", "chat": False},
        "ft": {"editor": "ft_m"},
        "both": {"editor": "hybrid", "options": {"editor": "wise", "memory": {"top_k": 2}}},
    }
    assert options(editors, {}, CHAT) == {
        "grace": {"layer": 1, **told},
        "bare": {"chat": False, "system": "Be brief."},
        "ft": {},
        "both": {"editor": "wise", "editor_options": told, "memory": {"top_k": 2, "chat": True}},
    }
    assert options(editors, {}, AnswerOptions(chat=True))["grace"] == {"layer": 1, "chat": True}


@pytest.mark.parametrize("name", ["leaderboard", "leaderboard_events", "fairness"])
def test_where_nobody_asks_in_a_chat_no_cell_hangs_on_anything_else(name: str) -> None:
    editors = load_recipe(name).arguments["editors"]
    for entry in read_entries(editors, {}, AnswerOptions()):
        assert entry == Entry.read(entry.label, editors[entry.label], {})


def test_shared_options_reach_those_that_know_them() -> None:
    editors = {
        "rome": {"editor": "rome"},
        "own": {"editor": "memit", "contexts": ["So, "]},
        "ft": {"editor": "ft_l"},
        "both": {"editor": "hybrid", "options": {"editor": "alphaedit", "editor_options": {"l2": 1.0}}},
        "texts": {"editor": "hybrid", "options": {"editor": "ft_m"}},
    }
    assert options(editors, {"contexts": 5}, AnswerOptions()) == {
        "rome": {"contexts": 5},
        "own": {"contexts": ["So, "]},
        "ft": {},
        "both": {"editor": "alphaedit", "editor_options": {"l2": 1.0, "contexts": 5}},
        "texts": {"editor": "ft_m"},
    }
    with pytest.raises(EditError, match=r"found the shared options \['context'\], which no editor here has"):
        read_entries(editors, {"context": 5}, AnswerOptions())


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_sample_contexts_and_teach_grace_in_the_chat(name: str) -> None:
    arguments = published(name).arguments
    answers = AnswerOptions(**arguments["measuring"]["answers"])
    given = options(arguments["editors"], arguments["shared"], answers)
    assert answers.chat
    assert given["alphaedit"]["contexts"] == given["rome"]["contexts"] == 5
    assert "contexts" not in given["scr"]
    assert given["wise"]["chat"] is True
    if name != "fairness":
        assert given["grace"]["chat"] is True
    else:
        assert given["alphaedit+scr"]["editor_options"]["contexts"] == 5


def test_the_leaderboard_has_every_published_editor_and_examples_for_ike() -> None:
    arguments = load_recipe("leaderboard").arguments
    used = {options["editor"] for options in arguments["editors"].values()}
    assert set(EDITORS) - used == {"l1", "sensitivity_aware", "memorize_latest", "hybrid"}  # why: docs/leaderboard.md
    most, seed = max(load["edits"] * load.get("groups", 1) for load in arguments["loads"]), arguments["seed"]
    edited = {request.subject for request in world_requests(World(), most, seed)}
    examples = arguments["editors"]["ike"]["demonstrations"]
    assert not edited & {one["subject"] for one in examples}
    assert all(set(Example.of(EditRequest.from_dict(one)).uses) == {"copy", "update", "retain"} for one in examples)
