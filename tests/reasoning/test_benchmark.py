"""The face of all tasks: what it refuses, and that it leaves no trace."""

import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from lightning_edit.data.world import world_model_folder
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.reasoning import Benchmark, shipped_tasks
from tests.reasoning.oracle import TASKS, write_all


@pytest.fixture
def lm(tiny_model: Any) -> LanguageModel:
    """A random model with the world's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(world_model_folder())
    return LanguageModel(tiny_model("llama", vocab_size=len(tokenizer), max_position_embeddings=512), tokenizer)


def test_every_task_that_is_named_in_the_documentation_is_shipped() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "reasoning.md").read_text()
    assert [name for name in shipped_tasks() if f"`{name}`" not in text] == []
    wanted = {
        "gsm8k",
        "math500",
        "aime24",
        "aime25",
        "amc",
        "olympiadbench",
        "gpqa_diamond",
        "arc_challenge",
        "mmlu_pro",
    }
    assert wanted | {"mmlu_pro", "sst2", "mrpc", "cola", "rte", "nli", "mmlu"} <= set(TASKS)


def test_importing_the_package_imports_no_lm_eval() -> None:
    code = (
        "import sys, lightning_edit.callbacks, lightning_edit.reasoning.benchmark\n"
        "print([name for name in ('lm_eval', 'datasets', 'math_verify', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_lm_eval_the_worlds_tasks_work_and_others_say_what_to_install(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EditError, match=r"gsm8k need lm-evaluation-harness.*lightning-edit\[eval\]"):
        Benchmark(["gsm8k", "world_two_hop"])
    assert Benchmark(["world_multiple_choice"], limit=2).run(lm)["world_multiple_choice"].count == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": []}, "expected a list of different names"),
        ({"tasks": "gsm8k"}, "expected a list of different names"),
        ({"tasks": ["world_two_hop", "world_two_hop"]}, "expected a list of different names"),
        ({"limit": 0}, "limit=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"system": "Be brief."}, "chat=True"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        Benchmark(**{"tasks": ["world_two_hop"], **options})


def test_a_score_says_how_its_questions_were_put() -> None:
    plain = Benchmark(["world_arithmetic", "gsm8k"])
    thinking = Benchmark(["world_arithmetic", "gsm8k"], chat=True, reasoning=True)
    assert [plain.protocol(name) for name in plain.tasks] == ["bare", "bare"]
    assert [thinking.protocol(name) for name in thinking.tasks] == ["bare", "chat, thoughts"]


def test_a_run_leaves_no_trace(lm: LanguageModel, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lightning-edit[eval]")
    import lm_eval.api.task

    bars = lm_eval.api.task.tqdm
    tasks = ["world_arithmetic", "sst2", "rte_likelihood", "world_perplexity"]
    benchmark = Benchmark(tasks, limit=2, data_dir=write_all(tmp_path), max_new_tokens=4, batch_size=2)
    lm.model.train()
    lm.model.config.use_cache = True
    lm.tokenizer.padding_side = "right"
    frozen = next(lm.model.parameters())
    frozen.requires_grad_(False)
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(7)
    first = benchmark.run(lm)
    drawn = (random.random(), float(np.random.rand()), float(torch.rand(())))
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(7)
    assert drawn == (random.random(), float(np.random.rand()), float(torch.rand(())))
    assert list(first) == tasks
    assert first == benchmark.run(lm)  # the same questions, and nothing left over
    assert all(module.training for module in lm.model.modules())
    assert [value.requires_grad for value in lm.model.parameters()].count(False) == 1
    assert lm.model.config.use_cache is True
    assert lm.tokenizer.padding_side == "right"
    assert lm_eval.api.task.tqdm is bars
    assert all(torch.equal(before[name], value) for name, value in lm.model.state_dict().items())
    assert all(value.grad is None for value in lm.model.parameters())


def test_an_error_leaves_no_trace_either(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lightning-edit[eval]")
    tiny_lm.model.train()
    before = torch.random.get_rng_state(), random.getstate()
    with pytest.raises(EditError, match="model's context is 128"):
        Benchmark(["gsm8k"], data_dir=write_all(tmp_path)).run(tiny_lm)
    assert tiny_lm.model.training
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()
