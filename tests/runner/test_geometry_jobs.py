"""The geometry jobs, small: rows, controls, pictures, and that every editor starts from the clean model."""

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_edit.errors import EditError
from lightning_edit.jobs.geometry_collapse import collapse
from lightning_edit.jobs.geometry_compare import at_level, common_reliability, geometry_compare
from lightning_edit.jobs.geometry_correlation import _rates, _row, correlation
from lightning_edit.jobs.geometry_plots import Axis, Line, draw_panels
from lightning_edit.jobs.geometry_reading import points_of, read_spectra
from lightning_edit.jobs.geometry_sequence import relative_change, stability
from lightning_edit.jobs.geometry_settings import Edits, Reading
from lightning_edit.jobs.geometry_single import perturbation
from lightning_edit.jobs.geometry_stage import GeometryStage, Played
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.recipes import shipped_recipes
from lightning_edit.runner.job import find_job, job_parser
from lightning_edit.runner.recipe import load_recipe
from lightning_edit.runner.results import RunResult

STRONG: dict[str, Any] = {"layers": [1], "clamp": 6.0, "steps": 20, "weight_decay": 0.0, "contexts": ["Well. "]}
MEMIT: dict[str, Any] = {"editor": "memit", "prior_weight": 1.0, **STRONG}
TEXTS = [f"{name} lives in {place}, and the city is large." for name in ("Ann", "Bob", "Cleo") for place in "ABCDEFGH"]
OTHERS = ("diagnose", "sensitivity_compare")
GEOMETRY = [
    name
    for name in shipped_recipes()
    if name in OTHERS or (name.startswith("revisiting_") and name != "revisiting_retention")
]


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXTS))
    return str(path)


@pytest.fixture
def reading(texts: str) -> Reading:
    return Reading(texts=texts, samples=120, sketch=40, subspaces=[4], first_order=2, batch_size=4)


@pytest.fixture
def edits(request_file: Path) -> Edits:
    other = {**MEMIT, "aligned": False, "prior_weight": 0.2}
    return Edits({"one": MEMIT, "other": other}, requests=str(request_file), choice="first", tokens=600)


def rows(results: list[RunResult]) -> dict[str, dict[str, Any]]:
    return {result.label: result.row for result in results}


def test_collapse_measures_every_layer_beside_its_controls(
    model_folder: Path, reading: Reading, tmp_path: Path
) -> None:
    results = collapse(tmp_path, str(model_folder), reading)
    assert [result.label for result in results] == ["layer0", "layer1", "layer2"]
    for row in rows(results).values():
        assert row["d"] == 32
        assert row["samples"] >= 120
        assert 1 < row["effective_rank"] <= 32
        assert row["condition"] > 1
        assert row["condition_per_sample"] > 1e4 * row["condition"]  # the slip manufactures a direction
        assert row["untrained/condition"] > 1
        assert row["untrained/condition"] != row["condition"]
        assert row["null_R_max"] == 0
    assert results[0].files["spectra"].is_file()
    alone = collapse(tmp_path, str(model_folder), reading, untrained=False)
    assert not any(key.startswith("untrained") for key in alone[0].row)


def test_the_slip_is_that_of_each_sample_over_its_features(tiny_lm: LanguageModel, reading: Reading) -> None:
    places = points_of(tiny_lm, Reading())
    batch = {key: getattr(tiny_lm.encode(TEXTS[:9]), key).cpu() for key in ("input_ids", "attention_mask")}
    with tiny_lm.borrow():
        right = read_spectra(tiny_lm, [batch], places, "tokens")
        wrong = read_spectra(tiny_lm, [batch], places, "tokens", per_sample=True)
    ones = torch.ones(32, dtype=torch.float64) / math.sqrt(32)
    for name, metric in wrong.items():
        found = metric.spectrum()
        assert abs(float(found.directions[:, -1] @ ones)) == pytest.approx(1, abs=1e-4)
        assert found.sigma[-1] < 1e-5 * right[name].spectrum().sigma[-1]


def test_single_edits_start_from_the_clean_model(
    model_folder: Path, reading: Reading, edits: Edits, tmp_path: Path
) -> None:
    first = rows(perturbation(tmp_path, edits, str(model_folder), reading, count=1))
    both = rows(perturbation(tmp_path, edits, str(model_folder), reading, count=2))
    for label in ("one layer1", "other layer1", "one layer2"):
        row = first[label]
        assert row["norm_min"] <= row["norm_mean"] <= row["norm_max"]
        assert 0 < row["norm_share"] < 100
        assert row["null_norm_max"] == row["null_R_max"] == 0
        assert row["random_norm_mean"] > 0
        assert both[label]["norm_max"] >= row["norm_max"] * (1 - 1e-6)
        assert both[label]["edits"] == 2
    assert first["one layer0"]["norm_max"] == 0  # below the edited layer
    assert first["one layer1"]["first_order_error"] < 1e-3  # nothing to predict there
    assert first["one layer2_up_proj"]["first_order_error"] > 0
    assert (tmp_path / "norms.png").is_file()


def test_a_sequence_is_followed(model_folder: Path, reading: Reading, edits: Edits, tmp_path: Path) -> None:
    turned = rows(stability(tmp_path, edits, [1, 4], str(model_folder), reading, edits_per_commit=2))
    assert list(turned)[:2] == ["one layer0 1", "one layer0 4"]
    assert turned["one layer0 4"]["cos_min_k4"] == pytest.approx(1)
    for label in ("one layer1 4", "other layer1 4"):
        row = turned[label]
        assert 0 <= row["cos_min_k4"] <= row["cos_mean_k4"] < 1
        assert 0 <= row["random/cos_min_k4"] < 1
        assert row["null_R_max"] == 0
    changed = rows(relative_change(tmp_path, edits, [1, 4], str(model_folder), reading, edits_per_commit=2))
    once, often = changed["one layer1 1"], changed["one layer1 4"]
    assert 0 < once["R_min"] <= once["R_median"] <= once["R_max"]
    assert once["random_R_median"] > 0
    assert once["null_R_max"] == often["null_R_max"] == 0
    assert "growth_exponent" not in once
    assert often["growth_exponent"] == pytest.approx(math.log(often["law_ratio"] * 4) / math.log(4), abs=0.3)
    assert changed["one layer0 4"]["R_max"] == 0
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"growth.png"} | {f"{kind}-layer{i}.png" for kind in ("stability", "rates") for i in range(3)}


def test_rates_are_correlated_beside_what_needs_no_geometry(
    model_folder: Path, reading: Reading, edits: Edits, tmp_path: Path
) -> None:
    results = correlation(tmp_path, edits, [1, 2, 3, 4], str(model_folder), reading)
    assert len(results) == 2 * (12 + 12 + 1)
    found = rows(results)
    assert found["one, R median_mean"]["steps"] == 4
    assert (tmp_path / "steps.png").is_file()


def test_correlations_are_of_the_edited_layers_rates() -> None:
    class Probe:
        history: ClassVar[list[dict[str, Any]]] = [
            {
                "count": count,
                "rates": {
                    "edited": {"layer0": torch.full((3,), 9.0 - count), "layer1": torch.full((3,), size)},
                    "random": {"layer0": torch.ones(3), "layer1": torch.full((3,), float(count))},
                },
            }
            for count, size in ((1, 0.1), (2, 0.4), (3, 0.2), (4, 0.9))
        ]

    part = Played(Probe(), [1])  # type: ignore[arg-type]
    part.scores = [{"locality": value, "reliability": 1.0} for value in (1.0, 0.8, 0.9, 0.2)]
    edited = _rates(part, "edited", ["locality", "reliability"])
    assert edited["median_mean"]["locality"].rho == -1  # layer 0 is not edited
    assert _rates(part, "random", ["locality"])["q95_max"]["locality"].rho == pytest.approx(-0.8)
    row = _row("one", "R median_mean", edited["median_mean"])
    assert row == {"editor": "one", "of": "R median_mean", "steps": 4} | {
        "locality": -1.0,
        "locality/p_value": 0.0,
        "locality/stars": "***",
    }  # what never changes has no correlation


def test_editors_are_compared_at_equal_reliability(
    model_folder: Path, reading: Reading, request_file: Path, tmp_path: Path
) -> None:
    editors = {
        "memit/weak": {**MEMIT, "prior_weight": 5000.0},
        "memit/strong": {**MEMIT, "prior_weight": 5.0},
        "sensitivity/weak": {**MEMIT, "editor": "sensitivity_aware", "prior_weight": 5000.0},
        "sensitivity/strong": {**MEMIT, "editor": "sensitivity_aware", "prior_weight": 5.0},
    }
    edits = Edits(editors, requests=str(request_file), choice="first", tokens=600)
    found = rows(geometry_compare(tmp_path, edits, [2, 4], str(model_folder), reading, edits_per_commit=2))
    for name in ("memit", "sensitivity"):
        weak, strong = found[f"{name}/weak"], found[f"{name}/strong"]
        assert strong["reliability"] > weak["reliability"]
        assert strong["R_median"] > weak["R_median"]
        assert strong["null_R_max"] == 0
        level = found[f"{name} at equal reliability"]
        assert level["reliability"] == pytest.approx(found["memit at equal reliability"]["reliability"])
        assert weak["R_median"] <= level["R_median"] <= strong["R_median"]


def test_editors_that_share_targets_do_what_they_do_alone(
    model_folder: Path, reading: Reading, request_file: Path, tmp_path: Path
) -> None:
    editors = {"memit": {**MEMIT}, "sensitivity": {**MEMIT, "editor": "sensitivity_aware"}}
    edits = Edits(editors, {"targets": "base"}, str(request_file), "first", tokens=600)
    found = []
    for share in (False, True):
        played = geometry_compare(
            tmp_path, edits, [3], str(model_folder), reading, edits_per_commit=3, share_targets=share
        )
        found.append(rows(played))
    assert found[0] == found[1]


def test_interpolation_between_settings() -> None:
    def result(reliability: float, locality: float) -> RunResult:
        return RunResult("", {"editor": "e", "edits": 4, "reliability": reliability, "locality": locality})

    one = [result(0.2, 1.0), result(0.6, 0.9), result(0.9, 0.5)]
    other = [result(0.5, 0.7), result(0.8, 0.6)]
    assert common_reliability({"one": one, "other": other}) == 0.8
    assert at_level(one, 0.8)["locality"] == pytest.approx(0.9 - 0.4 * 2 / 3)
    assert at_level(other, 0.8) == {"editor": "e", "edits": 4, "reliability": 0.8, "locality": 0.6}
    assert common_reliability({"one": one, "low": [result(0.0, 1.0), result(0.1, 1.0)]}) is None
    broken = [result(0.3, 1.0), result(0.9, 0.9), result(0.5, 0.4)]  # too strong in the end
    assert at_level(broken, 0.6)["locality"] == pytest.approx(0.95)
    assert at_level([result(0.7, 0.8)], 0.7)["locality"] == 0.8


def test_what_cannot_be_played_is_named(model_folder: Path, reading: Reading, edits: Edits) -> None:
    stage = GeometryStage(str(model_folder), 4, edits, reading)
    clean = stage.weights()
    for counts in ([2, 1], [0, 2], [1, 9]):
        with pytest.raises(EditError, match="expected ascending ones from 1 to 4"):
            stage.play("one", counts)
    first = stage.stream[0]
    stage.stream = [first, stage.stream[1], first]  # the editor refuses an id that is at work
    played = stage.play("one", [2, 3])
    assert played.counts == [2]
    assert "went no further than 2 edits" in played.notes[0]
    stage.stream = [first, first]
    with pytest.raises(EditError, match="Expected at least the first 2 edits"):
        stage.play("one", [2], edits_per_commit=2)
    assert all(torch.equal(value, stage.weights()[name]) for name, value in clean.items())


def test_lines_without_a_point_are_left_out(tmp_path: Path) -> None:
    panels = {"left": [Line("a", [1, 2], [0.0, 3.0]), Line("b", [1], [0.0])], "right": [Line("a", [1], [1.0], True)]}
    path = draw_panels(tmp_path / "p.png", panels, Axis("x"), Axis("y", log=True), "t", mark=1.0, shades=True)
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("name", GEOMETRY)
def test_a_recipe_and_its_paper_configuration_are_arguments_of_the_job(name: str) -> None:
    recipe = load_recipe(name)
    for chosen in (recipe, *([recipe.as_published()] if recipe.paper else [])):
        parser: ArgumentParser = job_parser(chosen, find_job(chosen.job))
        settings = parser.instantiate_classes(parser.parse_args([]))
        if name.startswith("revisiting_"):
            assert settings.model == chosen.arguments["model"] if "model" in chosen.arguments else "embedded"
            how = settings.reading
            assert how is None or isinstance(how, Reading)
        for key, value in chosen.arguments.get("reading", {}).items():
            assert getattr(settings.reading, key) == value
        if "edits" in chosen.arguments:
            assert settings.edits.editors == chosen.arguments["edits"]["editors"]
    assert bool(recipe.paper) == name.startswith("revisiting_")
