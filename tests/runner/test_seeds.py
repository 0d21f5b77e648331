"""Training runs from several seeds: what a seed changes, and what the report makes of it."""

import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from lightning_edit.cli import main
from lightning_edit.runner.job import run_job
from lightning_edit.runner.merge import RecipeError
from lightning_edit.runner.recipe import Recipe
from lightning_edit.runner.results import ReportTable, RunResult
from lightning_edit.runner.seeds import read_seeds, seeded
from lightning_edit.runner.spread import ONE_SEED
from tests.runner.test_training import RECIPE, read

QUIET = ("--trainer.logger=false", "--trainer.max_steps=4")


def test_a_run_of_several_seeds_is_a_row_with_mean_and_spread(tmp_path: Path) -> None:
    arguments = ["run", str(RECIPE), "--runs=aligned,control", "--seeds", "3,5", "--output", str(tmp_path / "both")]
    assert main([*arguments, *QUIET]) == 0
    rows, single = read(tmp_path / "both"), []
    assert list(rows) == ["aligned", "control"]
    for seed in (3, 5):
        alone = ["run", str(RECIPE), "--runs=control", f"--seed_everything={seed}", "--output", str(tmp_path / "one")]
        assert main([*alone, *QUIET]) == 0
        single.append(read(tmp_path / "one")["control"]["train_loss"])
    assert single[0] != single[1]
    assert rows["control"]["train_loss"] == pytest.approx(fmean(single))
    assert rows["control"]["train_loss_std"] == pytest.approx(stdev(single))
    assert rows["control"]["seeds"] == 2
    assert (tmp_path / "both" / "control" / "seed-5" / "metrics.csv").is_file()
    text = (tmp_path / "both" / "report.md").read_text()
    assert f"{fmean(single):.3f} ± {stdev(single):.3f}" in text
    assert "seed 3 in `control/seed-3/metrics.csv`" in text


def test_a_seed_reaches_the_data_where_it_takes_one() -> None:
    stream = {"class_path": "lightning_edit.data.world.stream.WorldStream", "init_args": {"edits": 4, "seed": 7}}
    config: dict[str, Any] = {"seed_everything": 0, "data": stream}
    before = json.dumps(config)
    changed = seeded(config, 2)
    assert changed["seed_everything"] == changed["data"]["init_args"]["seed"] == 2
    assert changed["data"]["init_args"]["edits"] == 4
    assert json.dumps(config) == before
    plain = seeded({"data": {"class_path": "tests.runner.test_seeds.Without"}}, 2)
    assert plain == {"seed_everything": 2, "data": {"class_path": "tests.runner.test_seeds.Without"}}
    assert seeded({}, 1) == {"seed_everything": 1}


class Without:
    """Data that know no seed."""


def test_seeds_are_numbers() -> None:
    assert read_seeds("[0, 1]") == [0, 1]
    for bad in ("", "a", "1,1", "-1", "1.5", "true", "0;1"):
        with pytest.raises(RecipeError, match="expected different numbers from 0 on"):
            read_seeds(bad)


def test_a_job_reads_seeds_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", "teacher_forcing", "--seeds", "[4, 5]", "--print_config", "--output", str(tmp_path)])
    assert left.value.code == 0
    assert "seeds:\n- 4\n- 5\n" in capsys.readouterr().out


def one_seed(output: Path, seed: int = 0, words: str = "") -> list[RunResult]:
    """A job of one seed.

    Args:
        output: Folder of the report.
        seed: The seed.
        words: Something else.
    """
    (output / "mark").write_text(words)
    tables = [
        ReportTable("Same", ["method", "edits", "share"], [["a", 3, seed / 10], ["b", 4, None if seed else 0.5]]),
        ReportTable("Cases", ["text"], [[f"read by {seed}"]]),
    ]
    notes, errors = [ONE_SEED, "a note"], ["5 edits: broken"] if seed else []
    return [
        RunResult("a", {"share": seed / 10}, {}, {"mark": output / "mark"}, notes, tables[:1], errors),
        RunResult("b", {"share": 0.5}, tables=tables[1:]),
    ]


def seedless() -> list[RunResult]:
    """A job without a seed."""
    return []


def test_a_job_of_one_seed_is_called_once_for_each(tmp_path: Path) -> None:
    recipe = Recipe("x", job="tests.runner.test_seeds.one_seed", arguments={"words": "so"})
    first, second = run_job(recipe, ["--words=thus"], tmp_path, [2, 4])
    assert first.row == {"share": pytest.approx(0.3), "share_std": pytest.approx(stdev([0.2, 0.4])), "seeds": 2}
    assert second.row == {"share": 0.5, "share_std": 0.0, "seeds": 2}
    assert first.notes == ["seed 2: a note", "seed 4: a note"]
    assert first.errors == ["seed 2: 5 edits: broken", "seed 4: 5 edits: broken"]
    assert {name: path.read_text() for name, path in first.files.items()} == {
        "mark, seed 2": "thus",
        "mark, seed 4": "thus",
    }
    assert (tmp_path / "seed-4" / "mark").is_file()
    assert first.tables == [
        ReportTable("Same", ["method", "edits", "share"], [["a", 3, "0.300 ± 0.141"], ["b", 4, None]])
    ]
    assert [table.title for table in second.tables] == ["Cases, seed 2", "Cases, seed 4"]  # texts have no mean
    [alone, _] = run_job(recipe, [], tmp_path)
    assert (alone.row, alone.notes) == ({"share": 0.0}, [ONE_SEED, "a note"])
    with pytest.raises(RecipeError, match="takes no seed, leave --seeds out"):
        run_job(Recipe("x", job="tests.runner.test_seeds.seedless"), [], tmp_path, [1])
