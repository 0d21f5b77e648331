"""`collapse`: spectra of hidden representations, Table 1 and Tables 5 to 8 of *Revisiting* (arXiv 2606.00570).

Beside them stand two controls: the same model with random weights, which shows what training has to do with it, and the
condition number that comes out where each sample is centred over its features, which shows what a slip makes of it.
"""

from pathlib import Path

import torch

from lightning_edit.geometry.probe import GeometryProbe
from lightning_edit.geometry.spectrum import Spectrum
from lightning_edit.jobs.geometry_plots import Axis, Line, draw_panels
from lightning_edit.jobs.geometry_reading import points_of, read_batches, read_spectra
from lightning_edit.jobs.geometry_settings import Reading
from lightning_edit.jobs.inputs import EMBEDDED, check_files, draw_stream
from lightning_edit.jobs.stage import load_model
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.seq2seq import auto_class
from lightning_edit.runner.results import RunResult, Scalar


def collapse(
    output: Path,
    model: str = EMBEDDED,
    reading: Reading | None = None,
    requests: str = EMBEDDED,
    untrained: bool = True,
    dtype: str = "float32",
    device: str | None = None,
) -> list[RunResult]:
    """Measure the spectra of hidden representations, layer by layer.

    Args:
        output: Folder for the figure.
        model: Hub name or folder of a causal LM; "embedded" is the embedded world's model.
        reading: Where and on what representations are read.
        requests: Request file whose texts the model continues where there is no text to read; "embedded" reads the
            embedded world's documents.
        untrained: Whether to measure the same architecture with random weights, too.
        dtype: Precision of the weights.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    how = reading or Reading()
    check_files(requests, texts=how.texts)
    lm = load_model(model, dtype, device)
    stream = [] if requests == EMBEDDED or how.texts else draw_stream(requests, 1, 0, "first")
    batches = read_batches(lm, how, requests, stream)
    probe = GeometryProbe(points_of(lm, how), [], pooling=how.pooling, sketch=how.sketch, first_order=0)
    twice = probe.begin(lm, batches)
    assert probe.reference is not None  # begun
    trained = probe.reference.spectra
    with lm.borrow():
        slipped = read_spectra(lm, batches, probe.points, how.pooling, per_sample=True)
    fresh: dict[str, Spectrum] = {}
    if untrained:
        other = random_weights(lm)
        with other.borrow():
            found = read_spectra(other, batches, probe.points, how.pooling)
        fresh = {name: metric.spectrum() for name, metric in found.items()}
    results = []
    for name, known in trained.items():
        row: dict[str, Scalar] = {"place": name, "d": known.size, **known.summary(lm.dtype)}
        wrong = slipped[name].spectrum().sigma
        row["condition_per_sample"] = float(wrong[0] / wrong[-1].clamp_min(torch.finfo(wrong.dtype).tiny))
        row["null_R_max"] = twice[f"{name}/null/R_mean_abs_max"]
        if name in fresh:
            row |= {f"untrained/{key}": value for key, value in fresh[name].summary(lm.dtype).items()}
        results.append(RunResult(name, row))
    results[0].files["spectra"] = _draw(output / "spectra.png", trained, fresh)
    return results


def random_weights(lm: LanguageModel, seed: int = 0) -> LanguageModel:
    """The same architecture with the weights it has before training.

    Args:
        lm: The language model.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto_class(lm.model.config).from_config(lm.model.config)
    return LanguageModel(model.to(lm.device, lm.dtype).eval(), lm.tokenizer)


def _draw(path: Path, trained: dict[str, Spectrum], fresh: dict[str, Spectrum]) -> Path:
    """Singular values relative to the largest, place by place."""
    panels = {}
    for title, spectra in {"trained": trained, "random weights": fresh}.items():
        if spectra:
            panels[title] = [
                Line(name, range(1, known.size + 1), (known.sigma / known.sigma[0]).tolist())
                for name, known in spectra.items()
            ]
    x = Axis("direction k, by falling singular value")
    y = Axis("$\\sigma_k / \\sigma_1$", log=True)
    return draw_panels(path, panels, x, y, "Spectra of hidden representations", shades=True)
