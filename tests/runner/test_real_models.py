"""`edit_model` on small real models and real requests, where they are at hand: what a user of the recipe would run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit import load_requests
from lightning_edit.evaluation import target_probabilities
from lightning_edit.jobs.edit_model import edit_model
from lightning_edit.model.language_model import LanguageModel

COMMON = {"contexts": [], "clamp": 1.0, "kl": 0.0}
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "tiny1m": (50, {"layers": [2], "lr": 0.2, "steps": 25, "weight_decay": 1e-3, "prior_weight": 10, "passes": 6}),
    "stories260K": (
        25,
        {
            "layers": [1],
            "lr": 0.1,
            "steps": 100,
            "weight_decay": 0.0,
            "prior_weight": 0.01,
            "passes": 24,
            "stale_loss": 0.0,
        },
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_real_model_prefers_the_new_targets_and_reloads(name: str, shared_data: Path, tmp_path: Path) -> None:
    count, options = SETTINGS[name]
    requests = shared_data / "counterfact" / "counterfact-edit.json"
    before, after = edit_model(
        tmp_path,
        str(shared_data / "lm" / name),
        str(requests),
        options={**COMMON, **options},
        count=count,
        budget=5,
        on_bad="skip",
    )
    assert before.row["target_likelier_than_old"] < 0.6
    assert after.row["target_likelier_than_old"] >= 0.9

    folder = tmp_path / "model"
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = LanguageModel(plain, AutoTokenizer.from_pretrained(folder))
    wanted = load_requests(requests, on_bad="skip")[:count]
    prompts = [request.prompt for request in wanted]
    new = target_probabilities(lm, prompts, [request.target for request in wanted]).mean
    old = target_probabilities(lm, prompts, [request.old or "" for request in wanted]).mean
    assert float((new > old).double().mean()) == after.row["target_likelier_than_old"]
