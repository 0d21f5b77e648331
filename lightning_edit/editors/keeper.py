"""What every closed-form editor owns, says and saves: priors, ledgers, requests at work.

`Keeper` is the still part of an editor: it looks at models and changes none. What an editor does to a model stands in
`base.py`.
"""

import copy
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any, Self

from torch import Tensor

from lightning_edit.algebra import KeyCovariance, Prior
from lightning_edit.editors import exporting
from lightning_edit.editors.contexts import resolve_contexts
from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.estate import Declaration, Estate
from lightning_edit.editors.preparation import StatisticsSource, find_statistics
from lightning_edit.editors.presets import Preset
from lightning_edit.errors import StateError
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.model.weights import base_layer
from lightning_edit.requests import EditRequest


class Keeper(Editor):
    """Priors, ledgers and the book of an editor.

    Args:
        declaration: What the editor is.
    """

    needs_statistics = True

    def __init__(self, declaration: Declaration) -> None:
        self.history = declaration.history
        self._estate = Estate(declaration)

    @abstractmethod
    def make_prior(self, statistics: KeyCovariance, preset: Preset) -> Prior:
        """The method's prior at one layer: where an update may go, and at what price.

        Args:
            statistics: Key moments of the layer.
            preset: Settings of the model, for what the user left open.
        """

    @property
    def prepared(self) -> bool:
        """Whether the editor has what it needs to edit."""
        return self._estate.prepared

    @property
    def aligned(self) -> bool:
        """Whether all active requests stay in the solution, so that sequential edits equal the one-time edit."""
        return self.history == "kept"

    @property
    def requests(self) -> list[EditRequest]:
        """Requests at work, in the order they were applied."""
        return [entry.request for entry in self._estate.book.active.requests.values()]

    @property
    def layers(self) -> list[int]:
        """The edited layers; empty before the editor has met a model."""
        return list(self._estate.layers)

    @property
    def sites(self) -> list[EditedSite]:
        """The edited sites with their ledgers, lowest layer first; empty before the first edit."""
        return list(self._estate.sites)

    @property
    def preset(self) -> Preset | None:
        """The model's preset; None before the editor has met a model."""
        return self._estate.preset

    def attach(self, module: object) -> list[int]:
        """Settle on a model, and on the layers to edit in it. Nothing in the model changes.

        Args:
            module: An `EditableModule` or `LanguageModel`.

        Returns:
            The layers, whose key statistics `prepare` needs.
        """
        self._estate.attach(as_language_model(module))
        return self.layers

    def prepare(
        self,
        module: object,
        statistics: StatisticsSource | None = None,
        corpus: Iterable[str] | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Make the priors, from key statistics or from a corpus. Nothing in the model changes.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            statistics: A statistics file, or moments by layer.
            corpus: Texts to collect them from.
            max_tokens: Read this much of the corpus at most.
        """
        priors = self._priors(as_language_model(module), statistics, corpus, max_tokens)
        for site in self._estate.sites:
            if site.ledger.prior.fingerprint != priors[site.layer].fingerprint:
                raise StateError(
                    f"the edits of layer {site.layer} were made with other key statistics; expected the same ones. "
                    "Call reprior() to solve all active edits again with the new ones."
                )
        self._estate.priors, self._estate.statistics = priors, file_of(statistics)

    def twin(self, module: object, seed: int) -> Self:
        """A copy of an editor that has not edited yet, as if it had been made with another seed.

        Priors hang on key statistics alone and never change: the two share them. Contexts that are sampled are sampled
        anew.

        Args:
            module: The `EditableModule` or `LanguageModel` that it was prepared for.
            seed: Seed of its contexts.

        Raises:
            StateError: If the editor has edited, or was prepared for another model.
        """
        lm = as_language_model(module)
        self._estate.attach(lm)
        if self._estate.sites or self.requests:
            raise StateError(
                f"this editor has ledgers of {len(self.requests)} requests; expected one that was prepared and has not "
                "edited. Make and prepare a new one."
            )
        made = copy.deepcopy(self, {id(prior): prior for prior in self._estate.priors.values()})
        declared = made._estate.declaration
        made._estate.declaration = replace(declared, seed=seed)
        if isinstance(declared.contexts, int) and seed != declared.seed:
            made._estate.contexts = resolve_contexts(lm, declared.contexts, seed)
        return made

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers with which another editor goes on bit for bit."""
        return self._estate.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another editor stood; the model's weights have to come from the same moment.

        Args:
            state: What `state_dict` gave.
        """
        self._estate.load_state_dict(state)

    def weights(self, lm: LanguageModel) -> list[Tensor]:
        """The edited projections' matrices, lowest layer first.

        Args:
            lm: The language model.
        """
        return [base_layer(lm.projection(layer)).get_parameter("weight") for layer in self.layers]

    def reinstate(self, module: object) -> None:
        """Write the weights that were deployed last, bit for bit, into a model that carries others.

        So a saved editor goes on from a plain copy of the base model: `editor.load(path)`, then this. Whatever moved
        those weights in the meantime is gone.

        Args:
            module: An `EditableModule` or `LanguageModel`; a PEFT adapter with these edits has to be off it.
        """
        lm = as_language_model(module)
        self._estate.open(lm)
        for site in self.sites:
            site.reinstate(lm.projection(site.layer))

    def export_adapter(
        self, module: object, folder: str | PathLike[str], name: str | None = None, rank: int | None = None
    ) -> dict[str, Any]:
        """Write the edits as a LoRA adapter that plain PEFT loads; see `adapter.py`.

        Args:
            module: An `EditableModule` or `LanguageModel` that carries the edits.
            folder: Where to write.
            name: Hub name or folder of the base model, for the adapter's configuration.
            rank: Rank at most; None is the exact update's. What a lower one loses is measured.

        Returns:
            What `edits.json` beside the adapter says: requests, ranks, losses, hashes, distance of deployed and exact
            weights.
        """
        lm, note = self._described(module)
        return exporting.write_adapter(lm, self.sites, folder, note, name, rank)

    def export_delta(self, module: object, path: str | PathLike[str], base: object | None = None) -> dict[str, Any]:
        """Write what the edits added to the weights as one safetensors file; see `delta_file.py`.

        Args:
            module: An `EditableModule` or `LanguageModel` that carries the edits.
            path: The file.
            base: A model with the weights that the delta should start from; the ledgers' base weights where None, which
                are the unedited model's as long as no training was adopted.

        Returns:
            What the file says about itself, and the distance of deployed and exact weights.
        """
        lm, note = self._described(module)
        start = None if base is None else as_language_model(base)
        return exporting.write_difference(lm, self.sites, path, note, start)

    def export_merged(self, module: object, folder: str | PathLike[str]) -> dict[str, Any]:
        """Write the model with its edits as a folder that plain transformers loads; a PEFT adapter is merged in.

        Args:
            module: An `EditableModule` or `LanguageModel` that carries the edits.
            folder: Where to write.

        Returns:
            What `edits.json` in the folder says: requests, and the distance of deployed and exact weights.
        """
        lm, note = self._described(module)
        return exporting.write_merged(lm, folder, note)

    def _described(self, module: object) -> tuple[LanguageModel, dict[str, Any]]:
        """The language model, and what every export says about it."""
        lm = as_language_model(module)
        self._estate.open(lm)
        ids = [request.id for request in self.requests]
        return lm, exporting.describe(lm, self._estate.declaration.name, self.sites, ids)

    def _priors(
        self,
        lm: LanguageModel,
        statistics: StatisticsSource | None,
        corpus: Iterable[str] | None,
        max_tokens: int | None,
    ) -> dict[int, Prior]:
        """A prior for every edited layer."""
        self._estate.attach(lm)
        moments = find_statistics(lm, self.layers, statistics, corpus, max_tokens)
        assert self.preset is not None  # attached
        return {layer: self.make_prior(moments[layer], self.preset) for layer in self.layers}


def file_of(statistics: StatisticsSource | None) -> str | None:
    """Path of a statistics file, if that is where they came from."""
    return None if statistics is None or isinstance(statistics, Mapping) else str(statistics)
