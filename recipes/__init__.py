"""Recipes: one experiment each, in YAML, with a header that says what it shows and how to run it.

`lightning-edit ls` lists them, `lightning-edit run NAME` runs one, `lightning-edit cp NAME FILE` copies one to change.
Knows only where the shipped files are. What a recipe may say is in `lightning_edit/runner/recipe.py`.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable

__all__ = ["shipped_recipes"]


def shipped_recipes() -> dict[str, Traversable]:
    """The recipes that come with the package: name to file, sorted by name.

    Example:
        >>> all(file.is_file() for file in shipped_recipes().values())
        True
    """
    found = {file.name.removesuffix(".yaml"): file for file in files(__name__).iterdir() if file.name.endswith(".yaml")}
    return dict(sorted(found.items()))
