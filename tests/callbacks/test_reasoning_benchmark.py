"""ReasoningBenchmark: when it asks, what it logs, and that the run it looks at is the same without it."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lightning_edit.callbacks import ReasoningBenchmark
from lightning_edit.callbacks import reasoning_benchmark as room
from lightning_edit.data.stream import EditStream
from lightning_edit.data.world import world_model_folder
from lightning_edit.errors import EditError, StateError, StrategyError
from lightning_edit.module import EditableModule
from lightning_edit.reasoning import TaskScore
from tests.callbacks.training import CONFIG, SILENT, SaveAt, editing, fit, requests, same, texts, weights

WORLD = ["world_multiple_choice", "world_perplexity"]


def module() -> EditableModule:
    """A random Llama with the world's tokenizer and room for its questions."""
    tokenizer = AutoTokenizer.from_pretrained(world_model_folder())
    options = {**CONFIG, "vocab_size": len(tokenizer), "max_position_embeddings": 256, "initializer_range": 0.1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **options))
    return EditableModule.from_model(model, tokenizer, lr=1e-3)


def data(edits: Any = None) -> EditStream:
    tokenizer = AutoTokenizer.from_pretrained(world_model_folder())
    options = {"train": texts(), "val": texts(3), "max_length": 24, "batch_size": 4, "tokenizer": tokenizer}
    return EditStream(requests=edits, **options)


def control(**options: Any) -> Any:
    """The schedule of edits without an editor."""
    return editing(editor=None, **options)


def bench(**options: Any) -> ReasoningBenchmark:
    return ReasoningBenchmark(**{"tasks": WORLD, "limit": 2, "batch_size": 4, **options})


class Counter:
    """Stands in for the questions: each run gives the number of runs so far."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, benchmark: Any, lm: Any, ranks: Any) -> dict[str, TaskScore]:
        self.runs += 1
        return {"world_two_hop": TaskScore(self.runs, "acc", 2, {"acc": self.runs, "f1": 0.5})}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()
    monkeypatch.setattr(room.Benchmark, "run", lambda *args, **options: counter(*args, **options))
    return counter


def places(watch: ReasoningBenchmark) -> list[tuple[float, float]]:
    return [(row["count"], row["step"]) for row in watch.history]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every_n_edits": 4, "every_n_validations": None}, [(0, 0), (4, 4), (6, 6)]),
        ({"every_n_edits": 3, "every_n_validations": None, "at_end": False}, [(0, 0), (4, 4), (6, 6)]),
        ({"every_n_commits": 2, "every_n_validations": None, "at_start": False}, [(4, 4), (6, 6)]),
        ({"every_n_validations": 1}, [(0, 0), (2, 3), (6, 6)]),
        ({"every_n_validations": 2, "at_end": False}, [(0, 0), (6, 6)]),
        ({"every_n_validations": None}, [(0, 0), (6, 6)]),
        ({"every_n_validations": None, "at_start": False, "at_end": False}, []),
    ],
)
def test_it_measures_when_it_is_told_to(options: dict[str, Any], expected: list[Any], runs: Counter) -> None:
    watch = bench(**options)
    fit(module(), data(requests(6)), [control(), watch], val_check_interval=3, limit_val_batches=1)
    assert places(watch) == expected
    assert runs.runs == len(expected)


def test_numbers_are_logged_and_monitored(tmp_path: Path, runs: Counter) -> None:
    watch, logger = bench(tasks=["world_two_hop"]), CSVLogger(tmp_path)
    callbacks = [control(), watch]
    trainer = fit(module(), data(requests(6)), callbacks, logger=logger, val_check_interval=3, limit_val_batches=1)
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    logged = [row for row in rows if row["reasoning/world_two_hop"]]
    assert [float(row["reasoning/world_two_hop"]) for row in logged] == [1, 2, 3]
    assert [row["edit/count"] for row in logged] == ["0", "2", "6"]
    assert {row["reasoning/world_two_hop/f1"] for row in logged} == {"0.5"}
    assert float(trainer.callback_metrics["reasoning/world_two_hop"]) == 3
    assert watch.baseline == {"world_two_hop": 1, "world_two_hop/f1": 0.5}
    summary = watch.summary()
    assert (summary["reasoning/world_two_hop"], summary["reasoning/world_two_hop_before"]) == (3, 1)
    assert summary["reasoning/protocol"] == "world_two_hop: bare"


def test_validate_test_and_predict_ask_once_each(tmp_path: Path, runs: Counter) -> None:
    watch, logger, mine = bench(tasks=["world_two_hop"]), CSVLogger(tmp_path), module()
    trainer = pl.Trainer(**SILENT, logger=logger, callbacks=[watch], enable_checkpointing=False)
    stream = data()
    stream.setup("fit")
    batches = stream.val_dataloader()
    assert trainer.validate(mine, batches, verbose=False)[0]["reasoning/world_two_hop"] == 1
    mine.test_step = lambda batch, batch_idx: None  # type: ignore[method-assign, assignment]
    mine.predict_step = lambda batch, batch_idx: batch_idx  # type: ignore[method-assign, assignment]
    assert trainer.test(mine, batches, verbose=False)[0]["reasoning/world_two_hop"] == 2
    trainer.predict(mine, batches)
    assert runs.runs == 3
    assert [row["world_two_hop"] for row in watch.history] == [1, 2, 3]


def test_the_live_model_is_asked_and_left_as_it_was(statistics: Path) -> None:
    plain, watched = module(), module()
    watch = bench(every_n_commits=1, every_n_validations=None)
    fit(plain, data(requests(4)), [editing(statistics_tokens=300)])
    fit(watched, data(requests(4)), [editing(statistics_tokens=300), watch])
    assert same(weights(plain), weights(watched))
    assert places(watch) == [(0, 0), (2, 2), (4, 4), (4, 6)]
    perplexities = [row["world_perplexity"] for row in watch.history]
    assert len(set(perplexities)) == len(perplexities)  # the model has changed each time
    assert watched.language_model.model.training


def test_what_is_edited_is_not_asked_about() -> None:
    edits = requests(4)
    watch = bench(every_n_validations=None, at_end=False)
    fit(module(), data(edits), [control(), watch], max_steps=1)
    assert watch.benchmark.avoid == sorted({str(request.subject) for request in edits})


def test_a_resumed_run_measures_as_one_that_never_stopped(tmp_path: Path) -> None:
    def run(folder: Path, ckpt: Path | None = None) -> ReasoningBenchmark:
        watch = bench(every_n_commits=2, every_n_validations=2)
        callbacks = [control(), watch, *([] if ckpt else [SaveAt(folder, 3)])]
        options = {"val_check_interval": 2, "limit_val_batches": 1}
        fit(module(), data(requests(6)), callbacks, ckpt_path=ckpt, **options)
        return watch

    whole = run(tmp_path)
    resumed = run(tmp_path, tmp_path / "3.ckpt")
    assert resumed.history == whole.history
    assert resumed.baseline == whole.baseline
    assert same(resumed.state_dict(), whole.state_dict())


def test_a_checkpoint_without_a_baseline_is_told_of(tmp_path: Path, runs: Counter) -> None:
    fit(module(), data(requests(6)), [control(), SaveAt(tmp_path, 4)])
    watch = bench(every_n_validations=None)
    with pytest.warns(UserWarning, match="holds 4 edits but no benchmark of the unedited model"):
        fit(module(), data(requests(6)), [control(), watch], ckpt_path=tmp_path / "4.ckpt")
    assert places(watch) == [(4, 4), (6, 6)]


def test_state_of_another_version_is_refused() -> None:
    with pytest.raises(StateError, match="version 7"):
        bench().load_state_dict({"version": 7})


def test_two_benchmarks_side_by_side(runs: Counter) -> None:
    watches = [bench(seed=seed, every_n_validations=None) for seed in (0, 1)]
    fit(module(), data(requests(4)), [control(), *watches], max_steps=2)
    assert [len(watch.history) for watch in watches] == [2, 2]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(StrategyError, match="every_n_edits=0"):
        bench(every_n_edits=0)
    with pytest.raises(EditError, match="limit=0"):
        bench(limit=0)


def test_without_edits_training_is_measured(runs: Counter, tmp_path: Path) -> None:
    watch, logger = bench(every_n_validations=1), CSVLogger(tmp_path)
    fit(module(), data(), [watch], max_steps=4, val_check_interval=2, limit_val_batches=1, logger=logger)
    assert places(watch) == [(0, 0), (0, 2), (0, 4)]
    assert "edit/count" not in (Path(logger.log_dir) / "metrics.csv").read_text()


def test_tasks_of_lm_eval_run_inside_of_training(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lightning-edit[eval]")
    rows = [{"sentence": f"this is film number {n}", "label": n % 2} for n in range(6)]
    (tmp_path / "sst2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = ["sst2_likelihood", "sst2", "world_multiple_choice"]
    watch = bench(tasks=tasks, limit=4, data_dir=tmp_path, every_n_validations=1)
    plain, watched = module(), module()
    options = {"max_steps": 4, "val_check_interval": 2, "limit_val_batches": 1}
    fit(plain, data(requests(4)), [control()], **options)
    trainer = fit(watched, data(requests(4)), [control(), watch], **options)
    assert same(weights(plain), weights(watched))
    assert [row["step"] for row in watch.history] == [0, 2, 4]
    assert watch.scores["sst2_likelihood"].count == 4
    assert {0, 0.25, 0.5, 0.75, 1} >= {row["sst2_likelihood"] for row in watch.history}
    assert "reasoning/sst2_likelihood" in trainer.callback_metrics
