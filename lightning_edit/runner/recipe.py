"""What a recipe file says: a labelled set of Lightning runs, or one job, and how to report them.

Knows the keys of the YAML and checks them. Refuses to know what a run does; that is `training` and `job`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml

from lightning_edit.recipes import shipped_recipes
from lightning_edit.runner.merge import Config, RecipeError, merge

Spec = TypeVar("Spec")
PaperTable = Literal["dimensions", "counts", "confidence", "failures", "cost"]
PlotKind = Literal["curves", "panels", "bars", "tradeoff"]
Scale = Literal["linear", "log"]


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as jsonargparse reads it; plain YAML 1.1 wants 1.0e-3."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)


@dataclass(frozen=True)
class PlotSpec:
    """One figure: logged metrics against another logged metric or the step, or numbers of the rows.

    Args:
        name: Name of the PNG file, without the ending.
        metric: Name of the logged metric, or a list of names, each drawn in its own line style.
        kind: `curves` in one picture; `panels`, one picture for each metric; `bars`, a group for each metric and a bar
            for each run; `tradeoff`, a point for each run. The last two take keys of the rows as `metric` and `x`.
        x: Name of the logged metric on the x axis; `step` is the optimizer step. A run that logs the metric but not
            `x` (a control run, say) borrows `x` at the same step from the first run that logs it.
        title: Title of the figure.
        xlabel: Label of the x axis; the name of `x` where absent.
        ylabel: Label of the y axis; the name of the metric where absent.
        runs: Labels of the runs to draw; all where absent.
        ylim: Limits of the y axis.
        xscale: `linear`, or `log` for numbers of edits that grow by factors.
        smooth: Draw the mean of the last so many points; the points themselves stand faintly behind.
    """

    name: str
    metric: str | list[str]
    kind: PlotKind = "curves"
    x: str = "step"
    title: str = ""
    xlabel: str = ""
    ylabel: str = ""
    runs: list[str] | None = None
    ylim: list[float] | None = None
    xscale: Scale = "linear"
    smooth: int = 1

    def __post_init__(self) -> None:
        for name, kind in (("kind", PlotKind), ("xscale", Scale)):
            if getattr(self, name) not in get_args(kind):
                found, known = getattr(self, name), ", ".join(get_args(kind))
                raise RecipeError(f"plot '{self.name}': found {name}={found!r}, expected one of {known}")
        if self.kind == "tradeoff" and not (isinstance(self.metric, str) and self.x != "step"):
            raise RecipeError(f"plot '{self.name}': a trade-off takes one key of the rows as metric and another as x")


@dataclass(frozen=True)
class ReportSpec:
    """What the report shows.

    Args:
        title: Heading of the report; the recipe's description where absent.
        text: Markdown below the heading.
        columns: Keys of the rows to show, in order; all where absent. A column no row has is left out.
        means: Logged metrics whose row value is the mean over the last part of the curve, given as a fraction of it,
            instead of the last point.
        plots: The figures.
        tables: Tables in the shape of the papers', `dimensions`, `counts`, `confidence`, `failures` and `cost`; where
            absent, all but the first for which there are numbers.
    """

    title: str = ""
    text: str = ""
    columns: list[str] | None = None
    means: dict[str, float] = field(default_factory=dict)
    plots: list[PlotSpec] = field(default_factory=list)
    tables: list[PaperTable] | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.tables or ()) - set(get_args(PaperTable)))
        if unknown:
            raise RecipeError(
                f"report.tables: found {', '.join(unknown)}, expected some of {', '.join(get_args(PaperTable))}"
            )


@dataclass(frozen=True)
class Recipe:
    """One recipe: either training runs (`config` and `runs`) or a job (`job` and `arguments`).

    Args:
        recipe: Name; the file's name where absent.
        config: A LightningCLI configuration: `seed_everything`, `trainer`, `model`, `data`.
        runs: Label to overrides of `config`, as `merge` reads them.
        job: Dotted path of a typed function that returns a list of `RunResult`.
        arguments: Defaults for the job's arguments.
        paper: What `--paper` changes, to make a published experiment of it: arguments of the job, or overrides of
            `config` as `merge` reads them.
        fast: What `--fast` changes, to see everything once in little time; as for `paper`.
        report: What the report shows.
        header: The comment at the top of the file, without the comment signs.
    """

    recipe: str
    config: Config = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    job: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, Any] = field(default_factory=dict)
    fast: dict[str, Any] = field(default_factory=dict)
    report: ReportSpec = field(default_factory=ReportSpec)
    header: str = ""

    @property
    def description(self) -> str:
        """The first line of the header."""
        return self.header.partition("\n")[0]

    def as_published(self) -> "Recipe":
        """The recipe with its `paper` configuration.

        Raises:
            RecipeError: It has none.
        """
        return self._changed(self.paper, "paper")

    def shortened(self) -> "Recipe":
        """The recipe with its `fast` configuration.

        Raises:
            RecipeError: It has none.
        """
        return self._changed(self.fast, "fast")

    def _changed(self, changes: dict[str, Any], name: str) -> "Recipe":
        if not changes:
            raise RecipeError(f"recipe '{self.recipe}' has no {name} configuration; leave --{name} out")
        if self.job:
            return replace(self, arguments={**self.arguments, **changes})
        return replace(self, config=merge(self.config, changes))

    def configs(self, labels: list[str] | None = None) -> dict[str, Config]:
        """The merged configuration of every run, or of the runs with the given labels, in the recipe's order.

        Args:
            labels: Labels of the runs; all where None.
        """
        unknown = sorted(set(labels or ()) - set(self.runs))
        if unknown:
            raise RecipeError(
                f"recipe '{self.recipe}': found no run {', '.join(map(repr, unknown))}; "
                f"its runs are {', '.join(map(repr, self.runs))}"
            )
        chosen = self.runs if labels is None else {label: self.runs[label] for label in self.runs if label in labels}
        return {label: merge(self.config, overrides) for label, overrides in chosen.items()}


def load_recipe(name_or_file: str) -> Recipe:
    """Read a shipped recipe by name, or any YAML file by path.

    Args:
        name_or_file: A name that `lightning-edit ls` shows, or a path.
    """
    return read_recipe(find_recipe(name_or_file))


def find_recipe(name_or_file: str) -> Traversable:
    """The file of a recipe: a path where one is given, else the shipped recipe of that name.

    Args:
        name_or_file: A name that `lightning-edit ls` shows, or a path.
    """
    shipped = shipped_recipes()
    if name_or_file in shipped:
        return shipped[name_or_file]
    if Path(name_or_file).is_file():
        return Path(name_or_file)
    raise RecipeError(
        f"found neither a recipe nor a file named '{name_or_file}'; the recipes are {', '.join(shipped)}, "
        "and a recipe of your own is given as the path of its YAML file"
    )


def read_recipe(file: Traversable) -> Recipe:
    """Read and check one recipe file.

    Args:
        file: The YAML file.
    """
    text = file.read_text(encoding="utf-8")
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{file}: not valid YAML: {error}") from error
    content = dict(_mapping(content, f"{file}"))
    content.setdefault("recipe", file.name.removesuffix(".yaml"))
    report = dict(_mapping(content.pop("report", None) or {}, f"{file}, report"))
    plots = [_build(PlotSpec, plot, f"{file}, report.plots") for plot in report.pop("plots", None) or []]
    content["report"] = _build(ReportSpec, {**report, "plots": plots}, f"{file}, report")
    recipe = _build(Recipe, {**content, "header": _header(text)}, f"{file}")
    return _checked(recipe, f"{file}")


def parse_value(text: str) -> Any:
    """Read one value as a recipe file would.

    Args:
        text: YAML of the value.

    Example:
        >>> parse_value("1e-3"), parse_value("[1, 2]"), parse_value("null"), parse_value("adopt")
        (0.001, [1, 2], None, 'adopt')
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"found the value {text!r}, which is not valid YAML: {error}") from error


def _checked(recipe: Recipe, where: str) -> Recipe:
    """The recipe, if it is of one kind; a recipe of training runs without `runs` has one run with its own name."""
    if bool(recipe.job) == bool(recipe.config):
        raise RecipeError(f"{where}: expected either 'config' (training runs) or 'job', found both or neither")
    if recipe.job and recipe.runs:
        raise RecipeError(f"{where}: found 'runs' beside 'job'; a job is one run, its settings go under 'arguments'")
    for label, overrides in recipe.runs.items():
        if not re.fullmatch(r"[\w.+-]+", str(label)):
            raise RecipeError(f"{where}: found the run label {label!r}, expected letters, digits, . + - _")
        _mapping(overrides or {}, f"{where}, runs.{label}")
    runs = {str(label): dict(overrides or {}) for label, overrides in recipe.runs.items()}
    if recipe.config and not runs:
        runs = {recipe.recipe: {}}
    return Recipe(**{**vars(recipe), "runs": runs})


def _header(text: str) -> str:
    """The comment lines at the top of the file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return "\n".join(lines).strip()


def _build(kind: type[Spec], content: Mapping[str, Any], where: str) -> Spec:
    """Build one of the dataclasses above, naming keys that it does not have or still needs."""
    known = [f.name for f in fields(kind) if f.name != "header"]  # type: ignore[arg-type]
    content = _mapping(content, where)
    unknown = sorted(set(content) - {*known, "header"}, key=str)
    if unknown:
        raise RecipeError(f"{where}: found {', '.join(map(repr, unknown))}, expected some of {', '.join(known)}")
    try:
        return kind(**content)
    except TypeError as error:
        raise RecipeError(f"{where}: {error}") from error


def _mapping(content: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise RecipeError(f"{where}: found {content!r}, expected a mapping of keys to values")
    return content
