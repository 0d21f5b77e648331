"""A cell of a table: a number as people read it, and its spread behind it."""

from collections.abc import Mapping

from lightning_edit.runner.results import Scalar

SPREAD = " ± "


def show(value: Scalar | None) -> str:
    """A cell of a table.

    Args:
        value: What the row holds; None where it holds nothing.

    Example:
        >>> [show(value) for value in (0.98765, 12.3456, 12345.6, True, 400, "memit", None)]
        ['0.988', '12.35', '12346', 'yes', '400', 'memit', '']
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if value != 0 and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"


def number(row: Mapping[str, Scalar], key: str) -> float | None:
    """A row's number; None where there is none, or something else.

    Args:
        row: The row.
        key: Its key.
    """
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def with_spread(row: Mapping[str, Scalar], key: str, unit: float = 1.0) -> Scalar | None:
    """What a row holds, with the standard deviation behind it where the row has one.

    Args:
        row: The row; the standard deviation of `x` is its `x_std`.
        key: The key.
        unit: What both are divided by.

    Example:
        >>> with_spread({"reliability": 0.9, "reliability_std": 0.012}, "reliability")
        '0.900 ± 0.012'
        >>> with_spread({"reliability": 0.9}, "reliability"), with_spread({}, "reliability")
        (0.9, None)
    """
    value, spread = number(row, key), number(row, f"{key}_std")
    if value is None:
        return row.get(key)
    if spread is None:
        return row[key] if unit == 1.0 else value / unit
    return f"{show(value / unit)}{SPREAD}{show(spread / unit)}"


def is_number(value: Scalar | None) -> bool:
    """Whether a cell belongs to a column of numbers.

    Args:
        value: The cell.
    """
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and SPREAD in value)
