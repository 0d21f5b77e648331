"""One family of errors.

Every message says what was found, what was expected, and what to do next. This file knows nothing else of the package.
"""


class EditError(Exception):
    """Base class of every error that `lightning_edit` raises on purpose."""


class RequestError(EditError):
    """An edit request, or the file it came from, cannot be used as it stands."""


class SiteError(EditError):
    """A model has no FFN output projection where one was expected, or one that cannot be edited."""


class StatisticsError(EditError):
    """Key statistics are missing, rank-deficient, or belong to another model."""


class LedgerError(EditError):
    """The ledger was asked for something its columns cannot give."""


class StateError(EditError):
    """Saved state does not fit the object that should load it."""


class StrategyError(EditError):
    """The Trainer's strategy, precision or schedule cannot carry edits."""


class GeometryError(EditError):
    """Hidden representations are misshapen, not finite, or too few for what is asked of them."""


def reason_of(error: BaseException) -> str:
    r"""What another package's error says, in one line; its class where it says nothing.

    Args:
        error: The error.

    Example:
        >>> reason_of(OSError("\n no such model\nsee the manual")), reason_of(ValueError())
        ('no such model', 'ValueError')
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
