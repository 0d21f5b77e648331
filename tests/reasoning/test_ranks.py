"""Questions that two processes share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lightning_edit.data.world import world_model_folder
from lightning_edit.errors import StrategyError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.reasoning import Benchmark
from lightning_edit.reasoning.ranks import Ranks
from tests.callbacks.training import CONFIG
from tests.ranks import in_two_processes


def square(part: Sequence[int]) -> list[int]:
    return [number * number for number in part]


def test_alone_everything_is_ones_own() -> None:
    ranks = Ranks()
    assert (ranks.rank, ranks.world) == (0, 1)
    assert ranks.share([3, 1, 2], square) == [9, 1, 4]
    assert ranks.share([], square) == []
    assert ranks.first(lambda: "mine") == "mine"
    with pytest.raises(ZeroDivisionError):
        ranks.all(lambda: 1 / 0)


def measured(ranks: Ranks) -> dict[str, tuple[float, int]]:
    """Tasks of the world, of a random model."""
    tokenizer = AutoTokenizer.from_pretrained(world_model_folder())
    torch.manual_seed(0)
    options = {**CONFIG, "vocab_size": len(tokenizer), "max_position_embeddings": 256, "initializer_range": 0.1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **options)).double()
    benchmark = Benchmark(["world_multiple_choice", "world_perplexity"], limit=5)
    scores = benchmark.run(LanguageModel(model, tokenizer), ranks)
    return {name: (found.score, found.count) for name, found in scores.items()}


def _work(rank: int) -> dict[str, Any]:
    ranks, mine = Ranks(), []

    def work(part: Sequence[int]) -> list[int]:
        mine.extend(part)
        return square(part)

    def fail() -> None:
        if rank == 1:
            raise ZeroDivisionError("nothing left")

    found = {"shared": ranks.share([5, 4, 3, 2, 1], work), "mine": list(mine), "one": ranks.share([7], square)}
    found["first"] = ranks.first(lambda: rank)
    found["benchmark"] = measured(ranks)
    found["alone"] = Ranks(alone=True).share([2], square)
    try:
        ranks.all(fail)
    except (ZeroDivisionError, StrategyError) as error:
        found["fault"] = f"{type(error).__name__}: {error}"
    return found


@pytest.mark.slow
def test_two_processes_answer_as_one(tmp_path: Path) -> None:
    first, second = in_two_processes(_work, tmp_path)
    for found in (first, second):
        assert found["shared"] == [25, 16, 9, 4, 1]
        assert (found["one"], found["first"], found["alone"]) == ([49], 0, [4])
    alone = measured(Ranks())
    assert first["benchmark"] == second["benchmark"]
    for name, (score, count) in alone.items():
        assert first["benchmark"][name] == (pytest.approx(score, rel=1e-9), count)
    assert (first["mine"], second["mine"]) == ([5, 3, 1], [4, 2])
    assert second["fault"] == "ZeroDivisionError: nothing left"
    assert first["fault"].startswith("StrategyError: rank 1 (ZeroDivisionError: nothing left) could not go on")
