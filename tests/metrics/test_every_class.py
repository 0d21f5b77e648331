"""The three checks that no metric may miss: an oracle, the untouched model, and a model with shuffled answers.

Each class is fed with what a model really says, and a class that the package exports but this file does not know fails
a test. The models are those of `test_oracle.py`, which checks the functions.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torchmetrics import Metric

import lightning_edit.metrics as room
from lightning_edit.decoding import decode_tokens
from lightning_edit.evaluation import ask, measure_baseline, measure_token_baseline, write_passages
from lightning_edit.evaluation.likelihood import log_likelihoods, score_continuations
from lightning_edit.evaluation.questions import make_questions
from lightning_edit.metrics import Idf, ngram_entropy
from tests.metrics.test_oracle import ORACLE, REQUESTS, SHUFFLED, STORIES, TASKS, UNEDITED
from tests.metrics.test_two_processes import everything
from tests.scripted import ScriptedLM

CLASSES = {
    name: kind for name in room.__all__ if isinstance(kind := getattr(room, name), type) and issubclass(kind, Metric)
}
MODELS = {"oracle": ORACLE, "untouched": UNEDITED, "shuffled": SHUFFLED}


class Said:
    """What a model says to everything there is to ask, after it was `UNEDITED`.

    Args:
        tokenizer: A tokenizer.
        script: What the model says.
    """

    def __init__(self, tokenizer: Any, script: Mapping[str, str]) -> None:
        self.lm = lm = ScriptedLM(tokenizer, UNEDITED)
        baseline = measure_baseline(lm, REQUESTS)
        self.before = measure_token_baseline(lm, REQUESTS).tokens
        lm.model.learn(dict(script))
        self.kept = ask(lm, REQUESTS, baseline)
        self.gold = ask(lm, REQUESTS)

    def verdicts(self, dimension: str) -> list[bool]:
        """Whether each question of a dimension is answered right."""
        return [one.right for one in self.kept if one.question.dimension == dimension]

    def gold_verdicts(self) -> list[bool]:
        """The same of locality probes, against the dataset."""
        return [one.right for one in self.gold if one.question.dimension == "locality_gold"]

    def likelihoods(self, *kinds: str) -> tuple[torch.Tensor, torch.Tensor, list[str], list[str]]:
        """Log-probabilities of new and old answers, with kind and record."""
        rows = []
        for one in REQUESTS:
            prompts = {
                "efficacy": [one.prompt],
                "paraphrase": one.paraphrases,
                "neighborhood": [probe.prompt for probe in one.locality["neighborhood"]],
            }
            rows += [(prompt, one, kind) for kind in kinds for prompt in prompts[kind]]
        new = log_likelihoods(self.lm, [prompt for prompt, *_ in rows], [one.target for _, one, _ in rows])
        old = log_likelihoods(self.lm, [prompt for prompt, *_ in rows], [str(one.old) for _, one, _ in rows])
        return new, old, [kind for *_, kind in rows], [one.id for _, one, _ in rows]

    def compare(self, metric: Any, kind: str) -> None:
        """Feed a comparison of likelihoods."""
        new, old, _, records = self.likelihoods(kind)
        metric.update(new, old, records)

    def score(self, metric: Any) -> None:
        """Feed all three comparisons."""
        new, old, kinds, records = self.likelihoods("efficacy", "paraphrase", "neighborhood")
        metric.update(new, old, kinds, records)

    def tokens(self, metric: Any) -> None:
        """Feed teacher-forced tokens of the edits' prompts."""
        asked = [one for one in make_questions(REQUESTS) if one.dimension == "reliability"]
        found = score_continuations(self.lm, [one.prompt for one in asked], [one.accepted[0] for one in asked])
        metric.update(found.likeliest, [one.request for one in asked])

    def continuations(self, metric: Any) -> None:
        """Feed greedy continuations of locality probes."""
        metric.update(list(self.before.values()), decode_tokens(self.lm, list(self.before)))

    def events(self, metric: Any) -> None:
        """Feed all verdicts with the event that each belongs to."""
        event = {request.id: str(request.group) for request in REQUESTS}
        metric.update([one.right for one in self.kept], [event[one.question.request] for one in self.kept])

    def fluency(self, metric: Any) -> None:
        """Feed texts."""
        metric.update([text for group in write_passages(self.lm, TASKS, top_k=1) for text in group])

    def consistency(self, metric: Any) -> None:
        """Feed texts with those that they should read like."""
        metric.update(write_passages(self.lm, TASKS, top_k=1), [task.references for task in TASKS])


Feed = Callable[[Said, Any], None]


def dimension(name: str) -> Feed:
    return lambda said, metric: metric.update(said.verdicts(name))


FLUENT = sum(ngram_entropy(story).item() for story in STORIES) / len(STORIES)
DULL = sum(ngram_entropy(f"{i} and so on").item() for i in range(len(STORIES))) / len(STORIES)
CHECKS: dict[str, tuple[Feed, float, float, float]] = {  # how it is fed; oracle, untouched, at most when shuffled
    "Reliability": (dimension("reliability"), 1, 0, 0),
    "Generalization": (dimension("generalization"), 1, 0, 0),
    "Portability": (dimension("portability"), 1, 0, 0),
    "Locality": (dimension("locality"), 1, 1, 0),
    "LocalityGold": (lambda said, metric: metric.update(said.gold_verdicts()), 1, 1, 0),
    "TokenLocality": (Said.continuations, 1, 1, 0.4),  # names share a letter here and there
    "EventAccuracy": (Said.events, 1, 0, 0),
    "EfficacySuccess": (lambda said, metric: said.compare(metric, "efficacy"), 1, 0, 0),
    "ParaphraseSuccess": (lambda said, metric: said.compare(metric, "paraphrase"), 1, 0, 0),
    "NeighborhoodSuccess": (lambda said, metric: said.compare(metric, "neighborhood"), 1, 1, 0),
    "EfficacyMagnitude": (lambda said, metric: said.compare(metric, "efficacy"), 1, -1, -0.999),
    "ParaphraseMagnitude": (lambda said, metric: said.compare(metric, "paraphrase"), 1, -1, -0.999),
    "NeighborhoodMagnitude": (lambda said, metric: said.compare(metric, "neighborhood"), 1, 1, -0.999),
    "Score": (Said.score, 1, 0, 0),
    "TeacherForcedTokenAccuracy": (Said.tokens, 1, 0.2, 0.4),
    "Fluency": (Said.fluency, FLUENT, FLUENT, DULL),  # bits, not a share: that of what was written
    "Consistency": (Said.consistency, 1, 1, 0),  # the untouched model tells the same stories
}
MADE: dict[str, Callable[[], Metric]] = {"Consistency": lambda: room.Consistency(Idf.fit(STORIES))}


@pytest.fixture(scope="module")
def said(trained_backend: str) -> dict[str, Said]:
    from tests.callbacks.training import make_tokenizer

    return {name: Said(make_tokenizer(trained_backend), script) for name, script in MODELS.items()}


def test_no_class_is_missing() -> None:
    assert set(CHECKS) == set(CLASSES)
    on_two = {type(metric).__name__ for metric in everything(slice(0, 0)).values()}
    assert on_two == set(CLASSES), "tests/metrics/test_two_processes.py"


@pytest.mark.parametrize("name", CLASSES)
def test_oracle_untouched_and_shuffled(name: str, said: dict[str, Said]) -> None:
    feed, right, untouched, shuffled = CHECKS[name]
    found: dict[str, dict[str, float]] = {}
    for label, model in said.items():
        metric = MADE.get(name, CLASSES[name])()
        feed(model, metric)
        value = metric.compute()
        numbers = value if isinstance(value, dict) else {name: value}
        found[label] = {key: number.item() for key, number in numbers.items()}
    for key in found["oracle"]:
        assert found["oracle"][key] == pytest.approx(right, abs=1e-4)
        if name == "TeacherForcedTokenAccuracy":
            assert found["untouched"][key] <= untouched  # its base rate: tokens that names have in common
        else:
            assert found["untouched"][key] == pytest.approx(untouched, abs=1e-4)
        assert found["shuffled"][key] <= shuffled + 1e-4
        assert found["shuffled"][key] < found["oracle"][key]
