"""Going through the edited layers of one model: optimise targets, read, solve, write.

Each layer takes its share of what the target still lacks, `V_l = W_l K_l + (Z - H) / (layers left)` (MEMIT, arXiv
2210.07229, algorithm 1; other shares stand in `residual.py`), with keys and states read on the model as the layers
below have just made it. This file knows ledgers by their sites and requests by their texts; it decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_edit.editors.active import ActiveColumn, Pair
from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.editors.reading import Reader, Reading
from lightning_edit.editors.report import EditReport
from lightning_edit.editors.residual import Sharing, mismatch
from lightning_edit.model.sharding import reshard
from lightning_edit.requests import EditRequest
from lightning_edit.targets import TargetOptimizer, TargetOptions, Targets, optimize_targets

NEARLY_EQUAL = 0.9999  # cosine of two keys that the ledger can hardly tell apart
MEASURED_AT_ONCE = 64  # columns in one forward where nothing is optimised
Requests = Sequence[EditRequest]
Placing = Literal["append", "replace", "set"]


@dataclass(slots=True)
class Sweep:
    """The edited layers of a model, lowest first.

    Args:
        reader: Reads requests on the model.
        sites: The edited sites.
        options: How targets are optimised.
        report: Where times and remarks go.
        sharing: How layers share out what targets lack.
        optimizer: What finds targets.
    """

    reader: Reader
    sites: Sequence[EditedSite]
    options: TargetOptions
    report: EditReport
    sharing: Sharing = field(default_factory=Sharing)
    optimizer: TargetOptimizer = optimize_targets

    def projection(self, site: EditedSite) -> torch.nn.Module:
        """The module of a site; where the model is sharded, with its pieces, which is what is written.

        Args:
            site: One of the sites.
        """
        reshard(self.reader.lm.model)  # FSDP leaves what its outermost module holds gathered after a forward
        return self.reader.lm.projection(site.layer)

    def deploy(self) -> None:
        """Write every layer's weight."""
        with self.report.timed("write"):
            for site in self.sites:
                site.deploy(self.projection(site))

    def enter_base(self, hold: bool = True) -> None:
        """Let the model carry its weights before any edit; a deployment has to follow, and a release, or `leave_base`.

        Args:
            hold: Put the deployed weights by, so that the weights that follow are unrestricted until the release.
        """
        if hold:
            self.hold()
        with self.report.timed("write"):
            for site in self.sites:
                site.enter_base(self.projection(site))

    def leave_base(self) -> None:
        """Let the model carry again what was deployed last."""
        with self.report.timed("write"):
            for site in self.sites:
                site.reinstate(self.projection(site))

    def hold(self) -> None:
        """Put the deployed weights by: until `release`, the model carries unrestricted ones."""
        for site in self.sites:
            site.hold(self.projection(site))

    def release(self) -> None:
        """Deploy from the weights that were put by, where any were."""
        with self.report.timed("write"):
            for site in self.sites:
                site.release(self.projection(site))

    def targets(self, groups: Sequence[Requests], old: Sequence[ActiveColumn] = ()) -> Targets:
        """Optimise one target for each group of requests.

        Args:
            groups: Requests that share a key.
            old: Their columns so far, whose targets are the starting points.
        """
        with self.report.timed("targets"):
            if old:
                columns = [self.reader.column(g, c.z, c.center) for g, c in zip(groups, old, strict=True)]
            else:
                columns = [self.reader.column(group) for group in groups]
            return self.optimizer(self.reader.lm, columns, self.reader.target_layer, self.options)

    def weakened(
        self, groups: Sequence[Requests], found: Targets, centers: Sequence[Tensor], strength: float
    ) -> Targets:
        """Targets part of the way from where the states were, with the losses there.

        Args:
            groups: Requests that share a key.
            found: Their targets.
            centers: Where the states were before the edit.
            strength: Share of the way.
        """
        z = [center + strength * (full - center) for full, center in zip(found.z, centers, strict=True)]
        with self.report.timed("targets"):
            columns = [self.reader.column(*part) for part in zip(groups, z, centers, strict=True)]
            once = replace(self.options, steps=1)
            loss = optimize_targets(self.reader.lm, columns, self.reader.target_layer, once).loss
        return replace(found, z=torch.stack(z), loss=loss)

    def losses(self, groups: Sequence[Requests]) -> list[float]:
        """How well the model as it is meets each group of requests: mean -log p(target) a token, at the bare prompts.

        Args:
            groups: Requests that share a key.
        """
        with self.report.timed("targets"):
            bare = replace(self.reader, contexts=())
            columns = [replace(bare.column(group), kl_prompt=None, preserved=[]) for group in groups]
            once = replace(self.options, steps=1, batch_size=MEASURED_AT_ONCE)
            return optimize_targets(self.reader.lm, columns, self.reader.target_layer, once).loss.tolist()

    def spread(self, columns: Sequence[ActiveColumn], first: Requests, how: Placing) -> None:
        """Put columns into the ledgers and the weights, layer by layer.

        Args:
            columns: The columns, with their targets.
            first: One request of each, whose prompt stands for all.
            how: `append` adds them, `replace` exchanges columns that are there, `set` makes them the only ones.
        """
        if not columns and how != "set":
            return
        ids = [column.id for column in columns]
        with self.report.timed("keys"):
            reading = self.reader.follow(first) if columns else None
        for i, site in enumerate(self.sites):
            with self.report.timed("keys"):
                keys, values = self._read(site, columns, reading, len(self.sites) - i)
            with self.report.timed("solve"):
                ledger = site.ledger
                change = {"append": ledger.append, "replace": ledger.replace, "set": ledger.set_columns}[how]
                site.rows.together(change, ids, keys, values)
            with self.report.timed("write"):
                site.deploy(self.projection(site))

    def _read(
        self, site: EditedSite, columns: Sequence[ActiveColumn], reading: Reading | None, left: int
    ) -> tuple[Tensor, Tensor]:
        """Keys (n, m) and the own rows of values (d, m) at one layer."""
        base = site.ledger.base
        if reading is None:
            return base.new_zeros(base.shape[1], 0).double(), base.new_zeros(base.shape[0], 0).double()
        keys = reading.keys(site.layer).to(base.device)
        wanted = torch.stack([column.z for column in columns], dim=1).to(base.device, torch.float64)  # (d, m)
        residual = self.sharing.part(wanted - reading.states().to(base.device), left)
        if self.sharing.original_keys:
            residual = residual * mismatch(site.ledger.prior, keys, reading.bare_keys(site.layer))
        return keys, site.wanted_output(self.projection(site), keys, residual)

    def take_out(self, columns: Sequence[ActiveColumn], deploy: bool = True) -> list[dict[int, Pair]]:
        """Take columns out of the ledgers and the weights.

        Args:
            columns: The columns.
            deploy: Whether to write the weights; something else has to, otherwise.

        Returns:
            For each column, its key and value at every layer.
        """
        with self.report.timed("solve"):
            pairs: list[dict[int, Pair]] = [{} for _ in columns]
            for site in self.sites:
                ids = [column.id for column in columns]
                place = {name: i for i, name in enumerate(site.ledger.ids)}
                found = [place[name] for name in ids]
                keys, values = site.ledger.keys[:, found], site.rows.gather(site.ledger.values[:, found])
                for i, pair in enumerate(pairs):
                    pair[site.layer] = keys[:, i].clone(), values[:, i].clone()
                site.ledger.drop(ids)
        if deploy:
            self.deploy()
        return pairs

    def put_back(self, columns: Sequence[ActiveColumn]) -> None:
        """Put columns into the ledgers and the weights with the keys and values they had.

        Args:
            columns: Columns with pairs.
        """
        if not columns:
            return
        with self.report.timed("solve"):
            for site in self.sites:
                pairs = [column.pairs[site.layer] for column in columns if column.pairs]
                keys, values = (
                    torch.stack(part, dim=1).to(site.ledger.base.device) for part in zip(*pairs, strict=True)
                )
                ids = [column.id for column in columns]
                site.rows.together(site.ledger.append, ids, keys, site.rows.cut(values))
        self.deploy()

    def deploy_exactly(self) -> None:
        """Write every layer's exact weight, whatever stands between it and a deployed one otherwise."""
        with self.report.timed("write"):
            for site in self.sites:
                site.deploy_exactly(self.projection(site))

    def near(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        """Pairs of columns whose keys are nearly equal at every layer, one of them among `ids`.

        Args:
            ids: New columns.
        """
        alike: set[tuple[str, str]] | None = None
        for site in self.sites:
            names, new = site.ledger.ids, set(ids)
            keys = torch.nn.functional.normalize(site.ledger.keys, dim=0)  # (n, N)
            places = [i for i, name in enumerate(names) if name in new]
            hits = (keys[:, places].T @ keys > NEARLY_EQUAL).nonzero().tolist()
            found = {(names[places[i]], names[j]) for i, j in hits if names[j] not in new or j < places[i]}
            alike = found if alike is None else alike & found
        return sorted(alike or ())
