"""Progress: who counts what, when a bar is drawn, and that nothing is left of it."""

import io
import sys
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import rich.console
import rich.progress
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

import lightning_edit.bars as bars_module
from lightning_edit.bars import Bar, RichBar, job_bar, show_progress
from lightning_edit.callbacks import EditMonitor
from lightning_edit.callbacks.bars import trainer_bar
from lightning_edit.decoding import decode
from lightning_edit.evaluation.answering import AnswerOptions, answer_greedy
from lightning_edit.evaluation.cost import measure_latency
from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.evaluation.questions import Question
from lightning_edit.judges import LLMJudge
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.progress import Progress, watched
from lightning_edit.reasoning.text_likelihood import score_texts
from lightning_edit.targets.columns import Column, TargetOptions, TargetPrompt
from lightning_edit.targets.optimize import optimize_targets
from tests.callbacks.training import editing, fit, requests, stream, tiny_module
from tests.judges.scribe import Scribe
from tests.scripted import ScriptedLM


class Counter(Progress):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.total = self.count = 0
        self.closed = False
        self.steps: list[int] = []

    def more(self, count: int) -> None:
        self.total += count

    def done(self, count: int = 1) -> None:
        self.count += count
        self.steps.append(self.count)

    def close(self) -> None:
        self.closed = True


PROMPTS = [f"{name} lives in" for name in ("Ann", "Bo", "Cy", "Dan", "Eve")]
SPAN = (0, 3)

WORK: dict[str, tuple[int, Callable[[LanguageModel], object]]] = {
    "decoding": (5, lambda lm: decode(lm, PROMPTS + PROMPTS[:2], 3, batch_size=2)),
    "likelihood": (5, lambda lm: score_continuations(lm, PROMPTS, ["Rome"] * 5, 2)),
    "texts": (5, lambda lm: score_texts(lm, PROMPTS, batch_size=2)),
    "keys": (2, lambda lm: lm.read_keys(["Ann is", "Bob is", "Ann was"], [SPAN] * 3, [0], 2)),
    "latency": (6, lambda lm: measure_latency(lm, PROMPTS[:2], 2, runs=2, warmup=1)),
    "targets": (
        3,
        lambda lm: optimize_targets(
            lm,
            [Column(f"c{i}", [TargetPrompt(PROMPTS[0], SPAN, "Rome")]) for i in range(3)],
            1,
            TargetOptions(steps=3, batch_size=2),
        ),
    ),
}


@pytest.mark.parametrize("name", WORK)
def test_all_that_was_announced_gets_done(name: str, tiny_lm: LanguageModel) -> None:
    count, work = WORK[name]
    counter = Counter()
    with watched(tiny_lm, counter):
        work(tiny_lm)
    assert counter.total == counter.count == count
    assert counter.steps == sorted(counter.steps)
    assert len(counter.steps) > 1 or name == "keys"
    assert counter.closed
    assert type(tiny_lm.progress) is Progress


def test_statistics_count_tokens(tiny_lm: LanguageModel) -> None:
    for budget in (None, 40):
        counter = Counter()
        with watched(tiny_lm, counter):
            found = collect_statistics(tiny_lm, PROMPTS * 4, [0], budget)
        assert counter.total == counter.count == found.tokens > 0


def test_a_judge_that_asks_another_model_is_heard_of(tokenizer: Any) -> None:
    asked = [Question("r", "reliability", prompt, ("Rome",)) for prompt in PROMPTS]
    lm, judge, counter = (
        ScriptedLM(tokenizer, dict.fromkeys(PROMPTS, " Roma")),
        LLMJudge(Scribe(lambda prompt: "A")),
        Counter(),
    )
    with watched(lm, counter):
        outcomes = answer_greedy(lm, asked, AnswerOptions(), judge)
    assert all(one.right for one in outcomes)
    assert counter.total == counter.count == 2 * len(PROMPTS)  # answers, and verdicts on them
    assert type(judge.progress) is Progress


def test_what_nobody_asks_for_is_done_at_once() -> None:
    counter = Counter()
    for number in counter.each(range(5)):
        if number == 2:
            break
    assert (counter.total, counter.count) == (5, 5)
    assert counter.steps == [1, 2, 5]


def test_the_one_before_listens_again_after_a_failure(tokenizer: Any) -> None:
    lm, outer, inner = ScriptedLM(tokenizer, {}), Counter(), Counter()
    with watched(lm, outer):
        with pytest.raises(ZeroDivisionError), watched(lm, inner):
            raise ZeroDivisionError
        assert lm.progress is outer
    assert inner.closed


class Drawn(Bar):
    def __init__(self, delay: float) -> None:
        super().__init__("work", delay)
        self.seen: list[tuple[int, int]] = []
        self.gone = False

    def _draw(self) -> None:
        self.seen.append((self.count, self.total))

    def _erase(self) -> None:
        self.gone = True


def test_a_bar_appears_only_where_work_takes_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(bars_module.time, "monotonic", lambda: clock[0])
    bar = Drawn(delay=2.0)
    bar.more(4)
    bar.done()
    clock[0] += 1.9
    bar.done()
    assert bar.seen == []
    bar.close()
    assert not bar.gone  # nothing to take away
    clock[0] += 0.2
    bar.done()
    bar.more(2)
    assert bar.seen == [(3, 4), (3, 6)]
    bar.close()
    assert bar.gone


class Screen(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_line_and_in_a_file_none(
    tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars_module, "DELAY", 0.0)
    for screen, drawn in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(bars_module.TqdmBar.__init__, "__defaults__", (0.0,))
        with show_progress(tiny_lm, "asking"):
            decode(tiny_lm, PROMPTS, 2, batch_size=2)
        assert ("asking: 100%" in screen.getvalue()) == drawn
        assert "5/5" in screen.getvalue() or not drawn


def test_a_job_says_in_a_log_where_it_is(tiny_lm: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    with job_bar(tiny_lm, "editing", 40) as tick:
        for _ in range(40):
            tick()
        assert isinstance(tiny_lm.progress, RichBar)
    said = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split(" after")[0] for line in said] == [f"editing: {done} of 40" for done in range(4, 41, 4)]
    assert type(tiny_lm.progress) is Progress


# -- beside the Trainer's own bar ----------------------------------------------------------------------------------


class Look(pl.Callback):
    """Asks for a bar in the middle of training, and draws it."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.inside = ""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            self.bar = trainer_bar(trainer, "asking about edits")
            if isinstance(self.bar, Bar):
                self.bar._delay = 0.0
            self.bar.more(7)
            self.bar.done(3)
            shown = trainer.progress_bar_callback
            if isinstance(shown, RichProgressBar):
                assert shown.progress is not None
                console = rich.console.Console(file=io.StringIO(), width=120)
                console.print(shown.progress.get_renderable())
                self.inside = console.file.getvalue()  # type: ignore[attr-defined]
            self.bar.close()


@pytest.mark.parametrize("theirs", [RichProgressBar, TQDMProgressBar, None])
def test_bars_of_callbacks_get_on_with_the_trainers(
    theirs: Any, trained_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    look, watch = Look(), EditMonitor(max_new_tokens=3, thought_tokens=3)
    callbacks = [look, editing(editor=None), watch, *([theirs()] if theirs else [])]
    data = stream(trained_backend, requests(4))
    fit(tiny_module(trained_backend), data, callbacks, enable_progress_bar=theirs is not None)
    assert watch.history
    if theirs is None:
        assert type(look.bar) is Progress
        assert "asking about edits" not in screen.getvalue()
    elif theirs is RichProgressBar:
        assert isinstance(look.bar, RichBar)
        lines = [line for line in look.inside.splitlines() if line.strip()]
        assert any(line.startswith("Epoch 0") for line in lines)  # Lightning's own line is there, and ours
        assert any("asking about edits" in line and "3/7" in line for line in lines)
    else:
        assert isinstance(look.bar, bars_module.TqdmBar)
        assert "asking about edits:  43%" in screen.getvalue()
