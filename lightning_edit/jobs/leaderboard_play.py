"""One cell of a leaderboard played: groups of edits made in the clean model, and everything measured that a row has.

The protocol is that of `protocols.py` for every load: groups of one are single editing, one group of 500 is a sequence.
Knows what is looked at while a model carries a group. Which cells there are stands in `leaderboard_goals.py`.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from lightning_edit.editors.editor import Editor
from lightning_edit.evaluation import (
    AnswerOptions,
    Baseline,
    Evaluator,
    TokenBaseline,
    evaluate_token_locality,
    measure_baseline,
    measure_token_baseline,
)
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.evaluation.cost import Latency, measure_latency, peak_cuda, peak_rss, state_bytes
from lightning_edit.jobs.leaderboard_cells import Load
from lightning_edit.jobs.protocols import evaluate_in_groups, protocol_name
from lightning_edit.jobs.task_scores import task_scores
from lightning_edit.judges.build import get_judge
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.reasoning import Benchmark
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import Scalar
from lightning_edit.runner.tables import DIMENSIONS

TIMED_PROMPTS = 2


@dataclass
class Measuring:
    """What is asked of a model that carries edits.

    Args:
        budget: Requests of a group that are asked about; all where absent.
        paraphrases: Paraphrases of each.
        locality: Locality probes of each.
        portability: Portability probes of each.
        decode: greedy lets the model write and judges its answer; teacher_forced is cheaper and flatters.
        answers: Lengths, chat template, reasoning, and where an answer ends.
        judge: exact_match where absent, begins, contains, or class_path and init_args of a judge.
        token_budget: Requests of a group whose locality probes are continued and compared token by token; 0 for none.
        token_length: Tokens of these continuations.
        tasks: Tasks of reasoning and general ability, see `docs/reasoning.md`; none where empty.
        questions: Questions of each task, the same at every load.
        data_dir: Folder of local data for the tasks; the Hugging Face Hub where absent.
        probed_groups: Groups of a load whose model does the tasks.
        latency: Timed runs of inference for each of two prompts, before and after the first group; 0 for none.
        seed: Seed of the choice of requests, probes and questions.
    """

    budget: int | None = 100
    paraphrases: int = 2
    locality: int = 4
    portability: int = 2
    decode: Decoding = "greedy"
    answers: AnswerOptions = field(default_factory=AnswerOptions)
    judge: str | dict[str, Any] | None = None
    token_budget: int = 40
    token_length: int = 50
    tasks: list[str] = field(default_factory=list)
    questions: int = 30
    data_dir: str | None = None
    probed_groups: int = 1
    latency: int = 3
    seed: int = 0

    def settings(self, load: Load) -> dict[str, Any]:
        """What a cell's numbers hang on, as plain values.

        Args:
            load: The cell's load.
        """
        plain = asdict(self)
        plain["answers"].pop("batch_size")  # how many rows run at once changes no answer
        plain["probed_groups"] = min(self.probed_groups, load.groups)
        return plain


class Arena:
    """A clean model, and what has to be known of it before anybody edits.

    Args:
        lm: The clean model.
        stream: All requests.
        measuring: What is asked.
    """

    def __init__(self, lm: LanguageModel, stream: Sequence[EditRequest], measuring: Measuring) -> None:
        self.lm, self.stream, self.measuring = lm, stream, measuring
        one, seed, how = measuring, measuring.seed, measuring.answers
        kinds = (one.paraphrases, one.locality, one.portability)
        judge = get_judge(one.judge)
        self.evaluator = Evaluator(one.budget, *kinds, seed, one.decode, options=how, judge=judge)
        self._probed = Evaluator(one.token_budget, 0, one.locality, 0, seed, options=how)
        self._answers = Baseline(how)
        self._tokens = TokenBaseline(one.token_length, how)
        self._benchmark = None
        if one.tasks:
            avoid = sorted({request.subject for request in stream if request.subject})
            self._benchmark = Benchmark(
                one.tasks, one.questions, seed, one.data_dir, batch_size=how.batch_size, chat=how.chat,
                system=how.system, reasoning=how.reasoning, avoid=avoid,
            )  # fmt: skip

    @property
    def protocol(self) -> str:
        """How answers are decoded, read and judged, on one line."""
        return protocol_name(self.evaluator)

    def play(self, editor: Editor, load: Load, batch: int) -> tuple[dict[str, Scalar], list[str]]:
        """A row of numbers and remarks; afterwards the model is clean again.

        Args:
            editor: A prepared editor with no edits at work.
            load: The load.
            batch: Requests handed to the editor at once.
        """
        requests = self.stream[: load.requests]
        self._know(requests, load)
        looked = _Looks(self, editor, self.latency(requests[: load.edits]))
        played = evaluate_in_groups(
            editor, self.lm, requests, load.edits, batch, self.evaluator, self._answers, look=looked.look
        )
        row: dict[str, Scalar] = {"aligned": editor.aligned, "batch": batch, **played.row()}
        row |= with_average(row) | looked.row()
        return row, played.notes

    def unedited(self, count: int) -> dict[str, Scalar]:
        """The clean model's row.

        Args:
            count: Requests that are asked about, of which the evaluator takes its budget.
        """
        requests = self.stream[:count]
        self._know(requests, Load(count))
        found = self.evaluator.evaluate(self.lm, requests, self._answers)
        row: dict[str, Scalar] = {"edits": 0, **found, "protocol": self.protocol}
        row |= with_average(row) | self.token_locality(requests) | self.abilities()
        latency = self.latency(requests)
        if latency is not None:
            row |= {"latency_seconds": latency[0].median, "latency_ratio": 1.0, "latency_cpu_ratio": 1.0}
        return row

    def token_locality(self, group: Sequence[EditRequest]) -> dict[str, float]:
        """Match ratio and exact match of continuations.

        Args:
            group: The edits at work.
        """
        if not self.measuring.token_budget:
            return {}
        return dict(evaluate_token_locality(self.lm, self._probed.draw(group), self._tokens, group))

    def abilities(self) -> dict[str, float]:
        """The number of each task, and the mean of those that are shares."""
        return task_scores(self._benchmark, self.lm)

    def latency(self, group: Sequence[EditRequest]) -> tuple[Latency, float] | None:
        """Time of a fixed number of new tokens behind a group's first prompts, and processor time of it all.

        Args:
            group: Some edits.
        """
        if not self.measuring.latency:
            return None
        prompts, begin = [request.prompt for request in group[:TIMED_PROMPTS]], time.process_time()
        found = measure_latency(self.lm, prompts, runs=self.measuring.latency)
        return found, time.process_time() - begin

    def _know(self, requests: Sequence[EditRequest], load: Load) -> None:
        """Complete what the clean model answers and writes, for the groups of a load."""
        for start in range(0, len(requests), load.edits):
            group = requests[start : start + load.edits]
            measure_baseline(self.lm, self.evaluator.draw(group), into=self._answers)
            if self.measuring.token_budget:
                measure_token_baseline(self.lm, self._probed.draw(group), into=self._tokens)


class _Looks:
    """What is looked at while the model carries a group, and the row of it."""

    def __init__(self, arena: Arena, editor: Editor, before: tuple[Latency, float] | None) -> None:
        self._arena, self._editor, self._before = arena, editor, before
        self._clean = [weight.detach().clone() for weight in editor.weights(arena.lm)]
        self._tokens: list[dict[str, float]] = []
        self._abilities: list[dict[str, float]] = []
        self._first: dict[str, float] = {}

    def look(self, group: Sequence[EditRequest]) -> None:
        """Measure.

        Args:
            group: The edits at work.
        """
        if not self._tokens:
            self._first = self._costs(group)
        self._tokens.append(self._arena.token_locality(group))
        if len(self._abilities) < self._arena.measuring.probed_groups:
            self._abilities.append(self._arena.abilities())

    def row(self) -> dict[str, float]:
        """Means over the groups; costs are the first group's."""
        return {**_means(self._tokens), **_means(self._abilities), **self._first}

    def _costs(self, group: Sequence[EditRequest]) -> dict[str, float]:
        """Latency against the clean model's, sizes, and how far the weights have gone."""
        lm, editor, found = self._arena.lm, self._editor, dict[str, float]()
        now = self._arena.latency(group)
        if now is not None and self._before is not None:
            found |= {"latency_seconds": now[0].median, "latency_ratio": now[0].relative_to(self._before[0])}
            found["latency_cpu_ratio"] = now[1] / self._before[1]  # what other programs do not disturb
        sizes = {"peak_rss_bytes": peak_rss(), "peak_cuda_bytes": peak_cuda(lm.device)}
        sizes |= {"state_bytes": state_bytes(editor.state_dict())}
        found |= {key: float(value) for key, value in sizes.items() if value is not None}
        if self._clean:
            found["relative_change"] = _change(editor.weights(lm), self._clean)
        return found


def with_average(row: dict[str, Scalar]) -> dict[str, float]:
    """The mean of the four dimensions, where all were asked.

    Args:
        row: A row with the dimensions among its keys.
    """
    values = [float(row[key]) for key in DIMENSIONS if key in row]
    return {"average": fmean(values)} if len(values) == len(DIMENSIONS) else {}


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each key over the rows that have it."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: fmean(row[key] for row in rows if key in row) for key in keys}


def _change(now: Iterable[Tensor], clean: Iterable[Tensor]) -> float:
    """||W - W_0|| / ||W_0|| over all weights that the editor writes."""
    pairs = [(a.detach().double(), b.double()) for a, b in zip(now, clean, strict=True)]
    moved = torch.stack([(a - b).norm() for a, b in pairs]).norm()
    return float(moved / torch.stack([b.norm() for _, b in pairs]).norm())
