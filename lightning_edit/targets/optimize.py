"""Batched optimisation of block targets: one offset per column, one Adam, per-column loss, clamp and stop.

    loss = mean over prompts of -log p(target)  +  kl * KL(p || p_0)  +  weight_decay * ||delta|| / ||h||^2

as in MEMIT (arXiv 2210.07229, section 4.2) and its public implementations, and, where a column preserves texts, the
mean of the same divergence at their ends, since a value written for one relation moves the subject's other relations.
Rows of different columns never meet, so optimising many columns at once gives what optimising each alone would. This
file knows the loss and the steps; how the model is run is `tail.py`'s business.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets.columns import Column, TargetOptions, Targets
from lightning_edit.targets.rows import Row, make_rows
from lightning_edit.targets.sections import Sections

TargetOptimizer = Callable[[LanguageModel, Sequence[Column], int, TargetOptions | None], Targets]
"""What `optimize_targets` is."""

Results = dict[int, tuple[Tensor, Tensor, Tensor, int]]  # column: (z, start, loss, passes)


def optimize_targets(
    lm: LanguageModel, columns: Sequence[Column], layer: int, options: TargetOptions | None = None
) -> Targets:
    """Find, for every column, the hidden state that makes the model say its targets.

    The target is the output of block `layer` at the subject's last token, or the output of its FFN projection, if the
    options say so or a norm stands between the FFN and the residual stream. The model is left exactly as it was found.

    Args:
        lm: The language model.
        columns: What should be said; each with at least one prompt.
        layer: The block that takes the offset.
        options: How to optimise.

    Returns:
        Targets, starts, losses and pass counts, in the order of `columns`.
    """
    options = options or TargetOptions()
    done: Results = {}
    lm.progress.more(len(columns))
    with lm.borrow(), torch.enable_grad():
        rows = make_rows(lm, list(columns))
        lengths = [max(row.tail for row in rows if row.column == i) for i in range(len(columns))]
        order = sorted(range(len(columns)), key=lambda i: lengths[i])  # columns of like length share a batch
        for first in range(0, len(order), options.batch_size):
            chosen = order[first : first + options.batch_size]
            done.update(_Batch(lm, columns, rows, chosen, layer, options).run())
        _check_finite(columns, done)
        return _gather(done, columns, lm)


def _gather(done: Results, columns: Sequence[Column], lm: LanguageModel) -> Targets:
    """Put results back into the order of the columns."""
    if not columns:
        empty = torch.zeros(0, lm.sites[0].width, device=lm.device)
        return Targets(empty, empty, torch.zeros(0), torch.zeros(0, dtype=torch.long))
    z, start, loss, steps = zip(*(done[i] for i in range(len(columns))), strict=True)
    return Targets(torch.stack(z), torch.stack(start), torch.stack(loss), torch.tensor(steps), [c.id for c in columns])


def _check_finite(columns: Sequence[Column], done: Results) -> None:
    """Name the columns whose optimisation ran away."""
    bad = [columns[i].id for i, (z, _, loss, _) in done.items() if not (z.isfinite().all() and loss.isfinite())]
    if bad:
        raise EditError(
            f"the targets of {len(bad)} columns are not finite ({', '.join(sorted(bad)[:5])}); expected finite losses. "
            "Check that the model's own outputs are finite, or lower the target's learning rate."
        )


class _Batch:
    """Columns that are optimised together; the finished leave it."""

    def __init__(
        self,
        lm: LanguageModel,
        columns: Sequence[Column],
        rows: list[Row],
        chosen: list[int],
        layer: int,
        options: TargetOptions,
    ) -> None:
        self.options, self.alive = options, chosen
        self.rows = [row for index in chosen for row in rows if row.column == index]
        self.tail = Sections(lm, layer, self.rows, options.places, options.prefix_cache)
        self._index()
        first = torch.tensor([self.owner.tolist().index(i) for i in range(len(chosen))], device=self.owner.device)
        start = self.tail.start[:, first]
        self.start = start if start.dtype == torch.float64 else start.float()  # (p, m, d): places, columns, width
        self.offset = torch.zeros_like(self.start)
        self.center = self.start.clone()
        for i, index in enumerate(chosen):
            if (center := columns[index].center) is not None:
                self.center[0, i] = center.to(self.start)
            if (z := columns[index].z) is not None:
                self.offset[0, i] = z.to(self.start) - self.start[0, i]
        self.offset = self._clamp(self.offset)
        self.moments = torch.zeros(2, *self.offset.shape).to(self.offset)  # Adam's (2, p, m, d)
        self.nll = torch.ones(len(chosen)).to(self.offset)  # weight of each column's likelihood (m,)
        self.before: Tensor | None = None  # log-probabilities where predictions should stay, at a zero offset
        self.keeping: Tensor | None = None  # and the weights of their divergences

    def _index(self) -> None:
        """Where each row's and each scored position's column stands among the living."""
        device, place = self.tail.lm.device, {column: i for i, column in enumerate(self.alive)}
        self.owner = torch.tensor([place[row.column] for row in self.rows], device=device)  # (r,)
        self.labels = torch.tensor([x for row in self.rows for x in (row.labels or (-1,))], device=device)
        prompts = torch.bincount(self.owner[[bool(row.labels) for row in self.rows]], minlength=len(self.alive))
        share = [1 / len(row.labels) if row.labels else 0.0 for row in self.rows]
        sizes = torch.tensor([len(row.scored) for row in self.rows], device=device)
        each = (torch.tensor(share, dtype=torch.float64, device=device) / prompts[self.owner]).repeat_interleave(sizes)
        self.of_score, self.weight = self.owner.repeat_interleave(sizes), each  # (scored,)

    def run(self) -> Results:
        """Optimise until every column has stopped: {column: (z, start, loss, passes)}."""
        done: Results = {}
        if bool(self.offset.any()):  # otherwise the first pass says it
            self._remember()
        for step in range(1, self.options.steps + 1):
            offset = self.offset.clone().requires_grad_()
            loss, settled = self._loss(offset)  # (m,), (m,)
            finished = (loss.detach() < self.options.stop_loss) | settled | ~loss.isfinite()
            finished |= step == self.options.steps
            for i in finished.nonzero().flatten().tolist():
                start, z = self.start[0, i], self.start[0, i] + self.offset[0, i]
                done[self.alive[i]] = (z, start, loss[i].detach(), step)
            self.tail.lm.progress.done(int(finished.sum()))
            if finished.all():
                break
            (gradient,) = torch.autograd.grad(loss[~finished].sum(), [offset])
            if finished.any():
                gradient = gradient[:, ~finished]
                self._compact(~finished)
            self._update(gradient, step)
        return done

    def _remember(self, log_p: Tensor | None = None) -> None:
        """Keep, where predictions should stay, what they are before any offset (scored, vocabulary)."""
        if (self.labels < 0).any():
            with torch.no_grad():
                if log_p is None:
                    log_p = self.tail.logits(torch.zeros_like(self.offset)[:, self.owner]).log_softmax(-1)
                self.before = log_p[self.labels < 0]  # (kept, vocabulary)
                self.keeping = self._weigh_kept(log_p.argmax(-1))

    def _weigh_kept(self, says: Tensor) -> Tensor:
        """The weight of each prediction that should stay (kept,), given what every scored position says.

        At the end of a preserved text that says what the column's first prompt says, nothing is to be kept.
        """
        kept, columns = self.labels < 0, torch.arange(len(self.alive), device=self.owner.device)
        owner = self.of_score[kept]
        at_end = torch.tensor([row.at_end for row in self.rows if not row.labels], device=owner.device)
        edited = says[torch.searchsorted(self.of_score, columns)]  # what is said at each column's first prompt
        used = at_end & (says[kept] != edited[owner])
        share = self.options.preserve / torch.bincount(owner[used], minlength=len(columns)).clamp_min(1)
        return torch.where(at_end, used * share[owner], self.options.kl).to(self.offset)

    def _loss(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of every living column (m,), and whether it is good enough whatever its loss (m,)."""
        log_p = self.tail.logits(offset[:, self.owner]).log_softmax(-1)  # (scored, vocabulary)
        if self.before is None:
            self._remember(log_p.detach())
        target = self.labels >= 0
        right = log_p.gather(1, self.labels.clamp_min(0)[:, None])[target, 0]
        norm = torch.linalg.vector_norm
        way = norm(self.start + offset - self.center, dim=2)  # (p, m)
        loss: Tensor = (self.options.weight_decay * way / norm(self.center, dim=2) ** 2).sum(0)
        share = self.weight[target].to(right) * self.nll[self.of_score[target]].to(right)
        loss = loss.index_add(0, self.of_score[target], -right * share)
        paid = torch.zeros_like(loss)
        if self.before is not None and self.keeping is not None:
            now = log_p[~target]
            drift = (now.exp() * (now - self.before)).sum(-1)  # KL(current || initial)
            paid = paid.index_add(0, self.of_score[~target], self.keeping * drift)
        return loss + paid, self._ease(log_p.detach()[target].argmax(-1) != self.labels[target], paid.detach())

    def _ease(self, wrong: Tensor, paid: Tensor) -> Tensor:
        """Weigh down the likelihood of columns that say their targets; which of them are good enough (m,)."""
        if self.options.nll_after is None:
            return torch.zeros_like(paid, dtype=torch.bool)
        said = torch.zeros_like(paid).index_add(0, self.of_score[self.labels >= 0], wrong.to(paid)) == 0
        self.nll = torch.where(said, self.options.nll_after, 1.0).to(self.nll)
        return said & (paid <= self.options.kl_after)

    def _compact(self, alive: Tensor) -> None:
        """Drop the finished columns and their rows."""
        kept = alive[self.owner]
        if self.before is not None and self.keeping is not None:
            still = alive[self.of_score[self.labels < 0]]
            self.before, self.keeping = self.before[still], self.keeping[still]
        self.tail.keep(kept.nonzero().flatten())
        self.rows = [row for row, keep in zip(self.rows, kept.tolist(), strict=True) if keep]
        self.alive = [column for column, keep in zip(self.alive, alive.tolist(), strict=True) if keep]
        self.start, self.center, self.nll = self.start[:, alive], self.center[:, alive], self.nll[alive]
        self.offset, self.moments = self.offset[:, alive], self.moments[:, :, alive]
        self._index()

    def _update(self, gradient: Tensor, step: int) -> None:
        """One step of Adam (torch's defaults), then the clamp."""
        mean, square = self.moments
        self.moments = torch.stack([mean.lerp(gradient, 0.1), 0.999 * square + 0.001 * gradient**2])
        scale = (self.moments[1] / (1 - 0.999**step)).sqrt() + 1e-8
        offset = self.offset - self.options.lr * self.moments[0] / (1 - 0.9**step) / scale
        self.offset = self._clamp(offset)

    def _clamp(self, offset: Tensor) -> Tensor:
        """Project targets onto the balls that are allowed around their centers, place by place."""
        way = self.start + offset - self.center
        bound = self.options.clamp * self.center.norm(dim=2, keepdim=True)
        length = way.norm(dim=2, keepdim=True)
        return torch.where(length > bound, self.center + way * (bound / length) - self.start, offset)
