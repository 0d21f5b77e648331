"""Everything an editor owns: whose model it edits, priors, ledgers, the book; and how that is saved and found again.

The estate is filled step by step: attached to a model (layers and contexts are chosen), given priors, opened (the
weights of that moment become the base). State that was loaded waits until a model is there. It lives outside of any
`nn.Module`, so that no precision setting of a Trainer touches it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning_edit.algebra import (
    Deployment,
    KeyCovariance,
    Penalty,
    Prior,
    SiteLedger,
    identity,
    load_statistics,
    prior_from_state,
)
from lightning_edit.editors.book import Book
from lightning_edit.editors.contexts import resolve_contexts
from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.editors.preparation import how_to_get
from lightning_edit.editors.presets import Preset, announce, choose_layers, choose_preset
from lightning_edit.editors.reading import Reader
from lightning_edit.editors.site_state import own_rows, site_state
from lightning_edit.errors import StateError, StatisticsError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.rows import Rows
from lightning_edit.model.sharding import reshard
from lightning_edit.model.statistics import expected_identity
from lightning_edit.model.weights import refuse_quantised
from lightning_edit.targets.columns import Place

VERSION = 1


@dataclass(frozen=True, slots=True)
class Declaration:
    """What makes an editor the method it is.

    Args:
        name: Class name of the editor.
        settings_of: Name of the shipped editor whose numbers a preset gives.
        make_noise: The ledgers' noise s for a preset.
        history: Which requests the ledgers hold.
        make_prior: The prior for key moments and a preset.
        layers: Layers to edit, if the user said so.
        contexts: Texts before prompts, how many to sample, or None.
        single: Edit one layer unless the user names several: the last of those that are meant for the model.
        place: Where in the last edited block targets live.
        bare_weight: Weight of the bare prompt's key; None is the mean over all texts.
        seed: Seed of sampled contexts.
        preserve: Texts about a subject, `{}`, whose continuation targets should leave as it is.
        preset: A preset or the name of one, if the user said so.
        deployment: What stands between the exact update and the deployed one, and how it is applied.
        penalty: What the exact update minimises besides.
        compact: Whether ledgers put by what they can make again, between deployments.
        from_base: Whether targets are read on the weights before any edit.
    """

    name: str
    settings_of: str
    make_noise: Callable[[Preset], float]
    history: str
    make_prior: Callable[[KeyCovariance, Preset], Prior]
    layers: tuple[int, ...] | None
    contexts: tuple[str, ...] | int | None
    single: bool
    place: Place
    bare_weight: float | None
    seed: int
    preserve: tuple[str, ...] | None
    preset: str | Preset | None
    deployment: Deployment
    penalty: Penalty | None
    compact: bool = False
    from_base: bool = False


class Estate:
    """What an editor owns.

    Args:
        declaration: What the editor is.
    """

    rows_apart = True  # whether processes may solve rows of a weight apart from each other, where nothing is restricted

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.identity: str | None = None  # of the model
        self.preset: Preset | None = None
        self.remarks: list[str] = []  # on the preset, for the next report
        self.layers: tuple[int, ...] = ()
        self.contexts: tuple[str, ...] = ()
        self.priors: dict[int, Prior] = {}
        self.statistics: str | None = None  # the file that the priors came from
        self.sites: list[EditedSite] = []
        self.book = Book()
        self._waiting: dict[str, Any] | None = None  # loaded ledgers, until a model is there

    @property
    def prepared(self) -> bool:
        """Whether there is all that an edit needs."""
        return bool(self.priors or self.sites or self._waiting)

    def attach(self, lm: LanguageModel) -> Reader:
        """Settle on a model, and on layers and contexts for it; a no-op the next time.

        Args:
            lm: The language model.
        """
        declared = self.declaration
        lm.check_decoder_only(f"{declared.name}, which writes values for keys at subjects,")
        if self.identity not in (None, lm.identity):
            raise StateError(
                f"this editor holds the edits of model {self.identity}; found model {lm.identity}. "
                "Make a new editor for another model."
            )
        if self.preset is None:
            self.preset = choose_preset(lm, declared.preset, declared.settings_of)
            self.remarks = announce(self.preset, isinstance(declared.preset, Preset))
        if self.identity is None:
            layers = choose_layers(lm, declared.layers, self.preset)
            for layer in layers:
                refuse_quantised(lm.projection(layer))
            self.layers = layers[-1:] if declared.single and declared.layers is None else layers
            contexts = self.preset.contexts if declared.contexts is None else declared.contexts
            self.contexts = resolve_contexts(lm, contexts, declared.seed)
            self.identity = lm.identity
        preserve = self.preset.preserve if declared.preserve is None else declared.preserve
        return Reader(lm, self.contexts, declared.bare_weight, self.layers[-1], preserve, declared.place)

    def open(self, lm: LanguageModel) -> Reader:
        """Have ledgers: those that were loaded, or new ones whose base is the model as it is now.

        Args:
            lm: The language model.
        """
        reader = self.attach(lm)
        reshard(lm.model)
        if self._waiting is not None:
            self.sites = [self._site(lm, layer, self._waiting[str(layer)]) for layer in self.layers]
            self._waiting = None
        elif not self.sites:
            if not self.priors:
                raise StatisticsError(f"this editor has no key statistics yet. {how_to_get(self.layers)}")
            declared = self.declaration
            self.sites = [
                EditedSite.fresh(
                    layer,
                    lm.projection(layer),
                    self.priors[layer],
                    self._noise(),
                    declared.deployment,
                    declared.penalty,
                    declared.compact,
                    declared.from_base,
                    self._rows(lm, layer),
                )
                for layer in self.layers
            ]
        return reader

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers: all that is needed to go on bit for bit.

        Where processes share the rows of weights, each of them has to call.
        """
        sites = {str(site.layer): site_state(site, include_prior=self.statistics is None) for site in self.sites}
        return {
            "version": VERSION,
            "editor": self.declaration.name,
            "history": self.declaration.history,
            "model": self.identity,
            "layers": list(self.layers),
            "contexts": list(self.contexts),
            "statistics": self.statistics,
            "sites": self._waiting if self._waiting is not None else sites,
            "book": self.book.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state: What `state_dict` gave.
        """
        declared = self.declaration
        for name, expected in (("version", VERSION), ("editor", declared.name), ("history", declared.history)):
            if state.get(name) != expected:
                raise StateError(
                    f"the saved editor has {name} {state.get(name)!r}; expected {expected!r}. "
                    "Load it with the editor and options it was saved with."
                )
        if declared.layers is not None and state["model"] and tuple(state["layers"]) != tuple(sorted(declared.layers)):
            raise StateError(
                f"the saved editor edits layers {state['layers']}; this one has layers={list(declared.layers)}. "
                "Use the saved run's layers, or leave the option out."
            )
        self.book = Book.from_state(state["book"])
        self.identity, self.layers = state["model"], tuple(state["layers"])
        self.contexts, self.statistics = tuple(state["contexts"]), state["statistics"]
        self.sites, self._waiting = [], state["sites"] or None

    def _site(self, lm: LanguageModel, layer: int, state: dict[str, Any]) -> EditedSite:
        """A site out of a loaded state, on the model's device."""
        declared, rows = self.declaration, self._rows(lm, layer)
        state = own_rows(state, rows)
        saved = state["ledger"]
        device = next(lm.projection(layer).parameters()).device
        prior = prior_from_state(saved["prior"]) if saved["prior"] else self._prior(lm, layer)
        ledger = SiteLedger(saved["base"].to(device), prior, self._noise(), declared.penalty, declared.compact)
        ledger.load_state_dict(saved)
        deployed = state["deployed"].to(device, copy=True)
        site = EditedSite(layer, ledger, deployed, declared.deployment, state["source"], declared.from_base, rows)
        site.pending = state["pending"]
        for name in ("ignored", "origin"):
            if (matrix := state.get(name)) is not None:
                setattr(site, name, matrix.to(device, copy=True))
        if site.keeps_origin and site.origin is None and declared.history == "absorbed" and self.book.active.applied:
            raise StateError(
                "the saved editor did not keep the weights from before its first batch, and this one reads them "
                "(targets on the base, or a restriction relative to the original weight); expected the saved run's "
                "options."
            )
        return site

    def _rows(self, lm: LanguageModel, layer: int) -> Rows:
        """The rows of a layer's weight that this process works on: its own, if no row's solution asks for another's.

        A restriction looks at all entries of an update (RECT) or at its spectrum (PRUNE), and a penalty is minimised to
        a gap that all rows share.
        """
        declared = self.declaration
        unrestricted = declared.deployment.restriction is identity and declared.penalty is None
        return Rows.of(lm.projection(layer), shared=self.rows_apart and unrestricted)

    def _noise(self) -> float:
        """The ledgers' noise."""
        assert self.preset is not None  # attached
        return self.declaration.make_noise(self.preset)

    def _prior(self, lm: LanguageModel, layer: int) -> Prior:
        """The prior that a state was saved without: already made, or made from the file it names."""
        if layer not in self.priors:
            moments = load_statistics(self.statistics or "", expected_identity(lm, self.layers), self.layers)
            assert self.preset is not None  # attached
            self.priors = {i: self.declaration.make_prior(moments[i], self.preset) for i in self.layers}
        return self.priors[layer]
