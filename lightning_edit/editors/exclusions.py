"""Which options of a closed-form editor exclude each other: said when it is made, not at its first edit.

Each pair below has no solution, or one that nobody asked for; `docs/editors.md` has them as a table. This file knows
options; what an editor does with them stands in `base.py`.
"""

from lightning_edit.errors import EditError


def check_penalty(penalty: object, noise: float, confined: bool, deployment: str) -> None:
    """Refuse a penalty where its problem has no solver.

    Args:
        penalty: The penalty, or None.
        noise: s of the editor.
        confined: Whether the prior confines the update to a null space.
        deployment: How a restriction is applied.

    Raises:
        EditError: Beside noise 0, a null space, or steps that are read on the deployed weight.
    """
    if penalty is None:
        return
    if deployment == "none":
        raise EditError(
            "deployment='none' with a penalty: there is no step that is read on the deployed weight; expected a "
            "deployment that looks at the whole update, such as 'feedback'."
        )
    if confined:
        raise EditError(
            "a penalty with an update that is confined to a null space has no solver; expected a prior of full rank, "
            "such as MEMIT's without projected=True."
        )
    if noise == 0:
        raise EditError(
            "a penalty with noise 0: values that have to be met exactly leave it nothing to trade for; expected a "
            "noise above 0, such as MEMIT's."
        )


def check_exact_values(noise: float, history: str, deployment: str, conflicts: str, passes: int) -> None:
    """Refuse what an editor that meets values exactly (noise 0) cannot do.

    With s = 0 there is no C = s Q^-1 + K K', which a step that looks at the deployed weight alone needs to take a
    column out; and no weight gives two values for one key.

    Args:
        noise: s of the editor.
        history: Which requests the ledgers hold.
        deployment: How a restriction is applied.
        conflicts: What becomes of a request that a new one contradicts.
        passes: How often a batch's targets are optimised, which exchanges its columns.

    Raises:
        EditError: Columns may have to go under `none`, or may collide.
    """
    if noise != 0:
        return
    if deployment == "none" and (history != "absorbed" or passes > 1):
        raise EditError(
            f"deployment='none' with noise 0, history={history!r} and passes={passes}: columns may have to go, and a "
            "step that is read on the deployed weight alone cannot take one out where values are met exactly; expected "
            "history='absorbed' with one pass, or deployment='feedback', or (EMMET, by its preset too) a noise above 0."
        )
    if conflicts == "append" and history == "kept":
        raise EditError(
            "conflicts='append' with noise 0 and history='kept': no weight gives the two values that contradictory "
            "requests ask of one key; expected conflicts='resolve', or history='absorbed' and one request a batch."
        )
