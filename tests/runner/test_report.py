"""What a recipe leaves behind: numbers, figures, text and a table."""

import io
import json
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from lightning_edit.runner.merge import RecipeError
from lightning_edit.runner.palette import COLOURS, colour, hatch, line, marker
from lightning_edit.runner.plots import align, draw
from lightning_edit.runner.recipe import PlotSpec, Recipe, ReportSpec
from lightning_edit.runner.report import print_table, write_report
from lightning_edit.runner.results import Curve, ReportTable, RunResult

PLOT = PlotSpec(name="reliability", metric="edit/reliability", x="edit/count", ylim=[0, 1])


@pytest.fixture
def results(tmp_path: Path) -> list[RunResult]:
    curves = {"edit/count": Curve([1, 2, 3], [10, 20, 30]), "edit/reliability": Curve([1, 2, 3], [1.0, 0.9, 0.8])}
    row = {"train_loss": 2.0, "edits": 30, "aligned": True, "bad": float("nan"), "zeta": 1}
    folder = tmp_path / "aligned" / "wandb"
    folder.mkdir(parents=True)
    control = RunResult("control", {"train_loss": 1.5}, {"edit/reliability": Curve([2, 3], [0.5, 0.4])})
    return [RunResult("aligned", row, curves, {"W&B offline run": folder}, ["a note"]), control]


@pytest.fixture
def recipe() -> Recipe:
    missing = PlotSpec(name="missing", metric="never/logged")
    return Recipe("demo", report=ReportSpec(title="Demo", columns=["run", "edits", "absent"], plots=[PLOT, missing]))


def test_the_summary_has_the_documented_form(recipe: Recipe, results: list[RunResult], tmp_path: Path) -> None:
    write_report(recipe, results, tmp_path, "the command")
    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text, parse_constant=pytest.fail)  # no NaN, no Infinity
    assert list(summary) == ["recipe", "rows"]
    assert summary["recipe"] == "demo"
    assert [list(row) for row in summary["rows"]] == [
        ["run", "aligned", "edits", "train_loss", "zeta"],
        ["run", "train_loss"],
    ]


def test_the_report_names_everything(recipe: Recipe, results: list[RunResult], tmp_path: Path) -> None:
    written = write_report(recipe, results, tmp_path, "the command")
    text = (tmp_path / "report.md").read_text()
    assert [path.name for path in written] == ["summary.json", "reliability.png", "report.html", "report.md"]
    assert "| run | edits |" in text
    assert "| control |  |" in text
    assert "![reliability](reliability.png)" in text
    assert "the command" in text
    assert "`aligned/wandb`" in text
    assert "- aligned: a note" in text
    assert "aligned: not finite, and so left out: bad" in text
    assert not list(tmp_path.glob("*.part"))


def test_how_answers_were_judged_is_said(recipe: Recipe, tmp_path: Path) -> None:
    runs = [RunResult(label, {"protocol": how}) for label, how in (("a", "greedy-24"), ("b", "greedy-24"), ("c", "x"))]
    write_report(recipe, [*runs[:2], RunResult("plain")], tmp_path, "")
    assert "\n\nAnswers: greedy-24.\n\nPython" in (tmp_path / "report.md").read_text()
    write_report(recipe, runs, tmp_path, "")
    assert "\n\n- Answers of a, b: greedy-24.\n- Answers of c: x.\n\nPython" in (tmp_path / "report.md").read_text()
    write_report(recipe, [RunResult("plain")], tmp_path, "")
    assert "Answers" not in (tmp_path / "report.md").read_text()


def test_pictures_of_a_run_are_shown(recipe: Recipe, tmp_path: Path) -> None:
    result = RunResult("a", files={"heatmap": tmp_path / "heat map.png"})
    write_report(recipe, [result], tmp_path, "")
    assert "![heat map](heat%20map.png)" in (tmp_path / "report.md").read_text()


def test_a_run_without_x_borrows_it_at_the_same_step(results: list[RunResult]) -> None:
    points = align("edit/count", "edit/reliability", results[1], results)
    assert points == Curve([20, 30], [0.5, 0.4])


BARS = PlotSpec("bars", ["edits", "train_loss", "absent"], kind="bars")
CLOUD = PlotSpec("cloud", "train_loss", kind="tradeoff", x="seconds", xscale="log")
PANELS = PlotSpec("panels", ["edit/reliability", "never"], kind="panels", x="edit/count", xscale="log", ylim=[0, 1])


@pytest.mark.parametrize("spec", [PLOT, BARS, CLOUD, PANELS], ids=lambda spec: spec.name)
def test_a_figure_shows_its_runs(spec: PlotSpec, results: list[RunResult], tmp_path: Path) -> None:
    for place, result in enumerate(results):
        result.row |= {"seconds": 0.1 + place, "train_loss_std": 0.1}
    path = draw(spec, results, tmp_path)
    assert path is not None
    image = imread(path)
    assert image.shape[0] > 500
    assert image.shape[1] > 750
    pixels = (image[::2, ::2, :3] * 255).round().astype(int).reshape(-1, 3)
    colours = set(map(tuple, pixels.tolist()))
    assert {(0, 114, 178), (213, 94, 0)} <= colours  # both runs are there, in the palette
    edge = (image[0], image[-1], image[:, 0], image[:, -1])
    assert all(float(side[..., :3].min()) == 1.0 for side in edge)  # nothing is clipped


def test_there_is_no_figure_of_nothing(results: list[RunResult], tmp_path: Path) -> None:
    for spec in (
        PlotSpec("a", ["never", "ever"], kind="bars"),
        PlotSpec("b", "never", kind="tradeoff", x="edits"),
        PlotSpec("c", "never", kind="panels"),
        PlotSpec("d", "edit/reliability", runs=["nobody"]),
    ):
        assert draw(spec, results, tmp_path) is None
    assert not list(tmp_path.glob("*.png"))


def test_no_two_of_many_runs_look_alike() -> None:
    for count in (len(COLOURS), 2 * len(COLOURS)):
        assert len({(colour(number), marker(number)) for number in range(count)}) == count
        assert len({(colour(number), line(number)) for number in range(count)}) == count
        assert len({(colour(number), hatch(number)) for number in range(count)}) == count


def test_plots_and_tables_that_cannot_be() -> None:
    with pytest.raises(RecipeError, match="found kind='pie', expected one of curves, panels"):
        PlotSpec("a", "b", kind="pie")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="found xscale='cubic'"):
        PlotSpec("a", "b", xscale="cubic")  # type: ignore[arg-type]
    for bad in ({"metric": ["b", "c"], "x": "d"}, {"metric": "b"}):
        with pytest.raises(RecipeError, match="one key of the rows as metric"):
            PlotSpec("a", kind="tradeoff", **bad)
    with pytest.raises(RecipeError, match="found prices, expected some of dimensions, counts"):
        ReportSpec(tables=["prices"])  # type: ignore[list-item]


def test_the_page_is_whole_and_obeys_no_tags(recipe: Recipe, results: list[RunResult], tmp_path: Path) -> None:
    table = ReportTable("Cases", ["asked", "share"], [["<b>Who|what</b>?\nAnn", 0.5]], "Read *them*.")
    results[0].tables.append(table)
    write_report(recipe, results, tmp_path, "the <command>")
    page = (tmp_path / "report.html").read_text()
    assert "<title>Demo</title>" in page
    assert page.count('src="data:image/png;base64,') == 1
    assert "http" not in page  # nothing is fetched
    assert "<b>" not in page
    assert "<td>&lt;b&gt;Who|what&lt;/b&gt;? Ann</td>" in page
    assert '<td style="text-align:right">0.500</td>' in page
    assert "<em>them</em>" in page
    assert "the &lt;command&gt;" in page
    assert (tmp_path / "report.md").read_text().count("## Cases") == 1


def test_the_table_is_never_cut(recipe: Recipe, results: list[RunResult]) -> None:
    wide = Recipe("demo", report=ReportSpec(columns=None))
    for result in results:
        result.row |= {f"a_rather_long_name_{index}": 0.5 for index in range(8)}
    stream = io.StringIO()
    print_table(wide, results, Console(file=stream, width=40))
    text = stream.getvalue()
    assert "…" not in text
    assert all(f"a_rather_long_name_{index}" in text for index in range(8))
    assert "aligned" in text
    assert "2.000" in text
