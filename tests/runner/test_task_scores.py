"""Tasks of reasoning in comparing jobs: asked of the model with its edits, and of the clean one; numbers in rows."""

from pathlib import Path
from typing import Any

import pytest

from lightning_edit.errors import EditError
from lightning_edit.jobs.asking import Asking
from lightning_edit.jobs.compare import compare
from lightning_edit.jobs.task_scores import task_scores
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.module import EditableModule
from lightning_edit.reasoning import Benchmark, TaskScore
from lightning_edit.requests import EditRequest

STRONG: dict[str, Any] = {"layers": [1], "clamp": 6.0, "steps": 40, "weight_decay": 0.0, "prior_weight": 1.0}
TASKS = ["world_arithmetic", "world_perplexity"]


class Marked(Benchmark):
    """A benchmark whose marks are given."""

    def run(self, *_: object, **__: object) -> dict[str, TaskScore]:
        return {
            "sst2": TaskScore(0.75, "acc", 4, {"acc": 0.75, "f1": 0.7}),
            "gsm8k": TaskScore(0.25, "acc", 4, {"acc": 0.25}),
            "wikitext": TaskScore(30.0, "perplexity", 4, {"perplexity": 30.0}),
        }


def test_shares_are_averaged_and_f1_and_perplexity_stand_beside(tiny_lm: LanguageModel) -> None:
    assert task_scores(Marked(TASKS), tiny_lm) == {
        "reasoning/sst2": 0.75,
        "reasoning/sst2/f1": 0.7,
        "reasoning/gsm8k": 0.25,
        "reasoning/wikitext": 30.0,
        "reasoning/mean": 0.5,
    }
    assert task_scores(None, tiny_lm) == {}


def test_an_edited_model_does_the_worlds_tasks_with_its_edits(
    model_folder: Path, two_seeds: dict[str, Any], tmp_path: Path
) -> None:
    clean, edited = compare(
        tmp_path,
        {"memit": STRONG},
        **two_seeds,
        measurements=2,
        choice="first",
        unedited=True,
        asking=Asking(tasks=TASKS, questions=3),
    )
    lm = EditableModule.from_pretrained(str(model_folder)).language_model
    expected = Benchmark(TASKS, 3).run(lm)["world_perplexity"].score
    assert clean.row["reasoning/world_perplexity"] == pytest.approx(expected, rel=1e-5)
    assert edited.row["reasoning/world_perplexity"] != pytest.approx(expected, rel=1e-3)
    assert edited.row["reasoning/world_perplexity_std"] == 0.0  # both seeds make the same edits, and are asked the same
    assert edited.row["reasoning/mean"] == edited.row["reasoning/world_arithmetic"]


def test_the_tasks_are_read_before_anything_is_edited() -> None:
    edits = [EditRequest("a", "Ann is in", "Rome", "Ann"), EditRequest("b", "It rains", "often")]
    benchmark = Asking(tasks=TASKS, questions=2).benchmark(edits)
    assert benchmark is not None
    assert (benchmark.avoid, benchmark._world_tasks is not None) == (["Ann"], True)
    assert Asking().benchmark(edits) is None
    with pytest.raises(EditError, match="limit=0"):
        Asking(tasks=TASKS, questions=0).benchmark(edits)


def test_tasks_belong_to_one_sequence(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    asking = Asking(tasks=TASKS, groups=[1])
    with pytest.raises(EditError, match=r"tasks=\['world_arithmetic'"):
        compare(tmp_path, {"memit": {}}, None, str(model_folder), str(request_file), count=4, asking=asking)
