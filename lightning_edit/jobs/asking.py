"""What is asked about edits besides the shares over all of them: options that comparing jobs share.

Other decoding, other judges, teacher-forced shares beside what the model writes, the split by confidence, failure modes
of reasoning, groups, tasks, and what inference costs. Knows the order of these; each is done in `evaluation/`,
`judges/` and `reasoning/`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_edit.editors.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.evaluation import AnswerOptions, Evaluator, Outcome, ask, shares
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.evaluation.confidence import measure_confidence, shares_by_confidence
from lightning_edit.evaluation.cost import Latency, measure_latency, peak_cuda, peak_rss, state_bytes
from lightning_edit.evaluation.failures import failed_edits, write_cases
from lightning_edit.evaluation.questions import LOCALITY
from lightning_edit.jobs.failure_tables import case_table
from lightning_edit.judges.build import get_judge, instantiate
from lightning_edit.judges.failure_modes import FailureModeJudge, mode_shares
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.progress import lent
from lightning_edit.reasoning import Benchmark
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import RunResult

TIMED_PROMPTS = 2


@dataclass
class Asking:
    """How edits are asked about.

    Args:
        answers: Lengths, chat template, reasoning, and where an answer ends.
        judge: exact_match where absent, begins, contains, or class_path and init_args of a judge, such as
            `lightning_edit.judges.LLMJudge`.
        teacher_forced: Whether the final edits are scored teacher-forced, too, as `..._teacher_forced`.
        by_confidence: Whether the final shares are split by the unedited model's confidence in the old answers.
        template: How that confidence is asked for, with `{}` for the prompt.
        groups: Sizes of groups that are each edited into the clean model, instead of one sequence: [1] is single
            editing, [1, 10, 100] the protocol of Revisiting, C.1.
        failures: class_path and init_args of the language model that reads the failed answers and names their failure
            modes, such as `lightning_edit.llm.Endpoint`; none are read where absent.
        latency: Timed runs of inference before and after, per prompt; 0 takes no latency.
        paraphrases: Paraphrases asked of each request; all where null.
        locality: Locality probes asked of each request, the kinds taking turns; all where null.
        portability: Portability probes asked of each request, the kinds taking turns; all where null.
        by_kind: Whether kinds of locality and portability probes have columns of their own, such as `locality/near`.
        tasks: Tasks of reasoning and general ability that the model is given behind the last edit, see
            `docs/reasoning.md`; none where empty.
        questions: Questions of each task, the same for all editors; all where null.
        data_dir: Folder of local data for the tasks; the Hugging Face Hub where absent.
    """

    answers: AnswerOptions = field(default_factory=AnswerOptions)
    judge: str | dict[str, Any] | None = None
    teacher_forced: bool = False
    by_confidence: bool = False
    template: str = "{}"
    groups: list[int] | None = None
    failures: dict[str, Any] | None = None
    latency: int = 0
    paraphrases: int | None = 2
    locality: int | None = 4
    portability: int | None = 2
    by_kind: bool = False
    tasks: list[str] = field(default_factory=list)
    questions: int | None = 30
    data_dir: str | None = None

    def __post_init__(self) -> None:
        limits = {"paraphrases": self.paraphrases, "locality": self.locality, "portability": self.portability}
        below = [f"{name}={limit}" for name, limit in limits.items() if limit is not None and limit < 0]
        if below:
            raise EditError(f"found {', '.join(below)}; expected a number from 0 on, or null for all of them.")

    def evaluator(self, budget: int | None, decode: Decoding) -> Evaluator:
        """What is asked while edits are made.

        Args:
            budget: Requests that are asked about; all where None.
            decode: `greedy` or `teacher_forced`.
        """
        if decode == "teacher_forced" and (self.failures or self.teacher_forced):
            raise EditError(
                "found decode='teacher_forced' beside teacher_forced or failures, expected decode='greedy': both stand "
                "beside what the model writes."
            )
        return Evaluator(
            budget, self.paraphrases, self.locality, self.portability, decode=decode, by_kind=self.by_kind,
            options=self.answers, judge=get_judge(self.judge),
        )  # fmt: skip

    def benchmark(self, edits: Iterable[EditRequest]) -> Benchmark | None:
        """The tasks, asked as edits are: through a chat, with thoughts; None where there are none.

        Args:
            edits: All edits, whose subjects the embedded world's tasks leave out.
        """
        if not self.tasks:
            return None
        avoid, how = sorted({request.subject for request in edits if request.subject}), self.answers
        benchmark = Benchmark(
            self.tasks, self.questions, data_dir=self.data_dir, batch_size=how.batch_size, chat=how.chat,
            system=how.system, reasoning=how.reasoning, avoid=avoid,
        )  # fmt: skip
        benchmark.prepare()  # a file that is missing is missed before anything is edited
        return benchmark

    def ticks(self, count: int, steps: int) -> int:
        """How often a progress bar moves while one editor plays.

        Args:
            count: Number of edits.
            steps: Number of steps of a sequence.
        """
        return sum(count // size for size in set(self.groups)) if self.groups else steps

    def untouched(self, lm: LanguageModel, stream: Sequence[EditRequest]) -> "Untouched":
        """What has to be known of the clean model before the first edit of a stream.

        Args:
            lm: The clean model.
            stream: The edits.
        """
        sure = measure_confidence(lm, stream, self.template, self.answers) if self.by_confidence else {}
        if self.by_confidence and not sure:
            raise EditError(
                "found by_confidence=true and no request with an `old` answer; expected some, or leave it out."
            )
        prompts = [request.prompt for request in stream[:TIMED_PROMPTS]]
        return Untouched(sure, prompts, measure_latency(lm, prompts, runs=self.latency) if self.latency else None)

    def finish(
        self,
        result: RunResult,
        lm: LanguageModel,
        editor: Editor,
        stream: Sequence[EditRequest],
        evaluator: Evaluator,
        outcomes: Sequence[Outcome],
        before: "Untouched",
        folder: Path,
    ) -> None:
        """Ask the edited model the rest, and enter it into the run's row, tables and files.

        Args:
            result: The run.
            lm: The edited model.
            editor: The editor, its edits at work.
            stream: The edits.
            evaluator: What was asked while they were made.
            outcomes: What came of it at the end.
            before: What is known of the clean model besides its answers.
            folder: Where files of the run go.
        """
        result.row |= forced_shares(self.forced(lm, stream, evaluator))
        result.row |= self.split(result, lm, outcomes, stream, before, folder)
        if self.latency:
            result.row |= self.costs(lm, editor, before)

    def forced(self, lm: LanguageModel, stream: Sequence[EditRequest], evaluator: Evaluator) -> list[Outcome]:
        """What comes of the drawn questions teacher-forced, on the model as it is now; nothing where it is not wanted.

        Args:
            lm: The model, edited or not.
            stream: The edits.
            evaluator: What is asked.
        """
        if not self.teacher_forced:
            return []
        drawn = evaluator.draw(stream)
        return ask(lm, drawn, decode="teacher_forced", options=self.answers)

    def split(
        self,
        result: RunResult,
        lm: LanguageModel,
        outcomes: Sequence[Outcome],
        stream: Sequence[EditRequest],
        before: "Untouched",
        folder: Path,
    ) -> dict[str, float]:
        """Shares by confidence, and of failure modes, where they are wanted; failed edits go into tables and files.

        Args:
            result: The run, for tables and files.
            lm: The model, whose progress bar is lent to who reads the failed edits.
            outcomes: What came of the questions.
            stream: The edits.
            before: What is known of the clean model besides its answers.
            folder: Where files of the run go.
        """
        found = shares_by_confidence(outcomes, before.confidence) if self.by_confidence else {}
        return found | (self._read_failures(result, lm, outcomes, stream, folder) if self.failures else {})

    def costs(self, lm: LanguageModel, editor: Editor, before: "Untouched") -> dict[str, float]:
        """Latency against the clean model's, and sizes.

        Args:
            lm: The edited model.
            editor: The editor, its edits at work.
            before: What is known of the clean model.
        """
        assert before.latency is not None  # taken with the same option
        now = measure_latency(lm, before.prompts, runs=self.latency)
        sizes: dict[str, int | None] = {"state_bytes": state_bytes(editor.state_dict())}
        sizes |= {"peak_rss_bytes": peak_rss(), "peak_cuda_bytes": peak_cuda(lm.device)}
        known = {key: float(value) for key, value in sizes.items() if value is not None}
        return {"latency_seconds": now.median, "latency_ratio": now.relative_to(before.latency), **known}

    def _read_failures(
        self,
        result: RunResult,
        lm: LanguageModel,
        outcomes: Sequence[Outcome],
        stream: Sequence[EditRequest],
        folder: Path,
    ) -> dict[str, float]:
        """Failed edits: shares of their modes, all of them in a file, some in a table."""
        folder.mkdir(parents=True, exist_ok=True)
        judge = FailureModeJudge(instantiate(self.failures), folder / "modes.sqlite")
        with lent(judge, lm.progress):
            cases = judge.classify(failed_edits(outcomes, stream))
        result.files["failed edits"] = folder / "failed_edits.jsonl"
        write_cases(result.files["failed edits"], cases)
        if cases:
            result.tables.append(case_table("/".join(folder.parts[-2:]), cases))
        return mode_shares(cases)


@dataclass(frozen=True, slots=True)
class Untouched:
    """What is kept of a clean model besides its answers.

    Args:
        confidence: In the old answers, by id of the request.
        prompts: What was timed.
        latency: How long it took.
    """

    confidence: Mapping[str, float]
    prompts: list[str]
    latency: Latency | None


def forced_shares(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Teacher-forced shares as `..._teacher_forced`; of locality there is none, as nothing is written.

    Args:
        outcomes: What came of the questions teacher-forced.
    """
    found = {key: value for key, value in shares(outcomes).items() if not key.startswith(LOCALITY)}
    return {f"{key}_teacher_forced": value for key, value in found.items()}
