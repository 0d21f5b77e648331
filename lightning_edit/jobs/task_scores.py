"""Tasks of reasoning and general ability as numbers of a row.

Knows the names of these numbers. Which tasks there are, and how they are asked, stands in `reasoning/`.
"""

from statistics import fmean

from lightning_edit.model.language_model import LanguageModel
from lightning_edit.reasoning import Benchmark


def task_scores(benchmark: Benchmark | None, lm: LanguageModel) -> dict[str, float]:
    """The number of each task, the F1 of those that have one, and the mean of the numbers that are shares.

    Args:
        benchmark: The tasks; None has no numbers.
        lm: The model, edited or not.

    Returns:
        `reasoning/TASK`, `reasoning/TASK/f1` and `reasoning/mean`.
    """
    if benchmark is None:
        return {}
    scores = benchmark.run(lm)
    found = {f"reasoning/{name}": score.score for name, score in scores.items()}
    found |= {f"reasoning/{name}/f1": score.metrics["f1"] for name, score in scores.items() if "f1" in score.metrics}
    shares = [score.score for score in scores.values() if "perplexity" not in score.metric]
    return {**found, **({"reasoning/mean": fmean(shares)} if shares else {})}
