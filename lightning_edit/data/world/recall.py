"""Deep supervision: the facts of an entity must be readable half-way up, at the last token of its name.

Large language models recall a subject's attributes in the FFNs of early and middle blocks, at the subject's last token,
and later blocks read off the one that is asked for (Geva et al. 2023, arXiv 2304.14767). A small model left to itself
looks facts up at the end of the prompt instead. `RecallHead` exists during training only: one linear classifier a
relation on the hidden state at the name's last token.
"""

import torch
from torch import Tensor, nn

from lightning_edit.data.world.facts import World
from lightning_edit.data.world.mentions import NOBODY, Mentions
from lightning_edit.data.world.relations import RELATIONS

NO_VALUE = -100


class RecallHead(nn.Module):
    """Reads every attribute of an entity from the hidden state at its name.

    Args:
        world: What is true.
        width: Width of the hidden states.
    """

    facts: Tensor

    def __init__(self, world: World, width: int) -> None:
        super().__init__()
        self.sizes = [len(world.values[relation.value]) for relation in RELATIONS]
        self.norm = nn.RMSNorm(width)
        self.read = nn.Linear(width, sum(self.sizes))
        self.register_buffer("facts", _table(world), persistent=False)

    def forward(self, hidden: Tensor, entities: Tensor) -> Tensor:
        """Mean cross-entropy over all attributes of all entities that are named.

        Args:
            hidden: Hidden states of one block (rows, length, width).
            entities: The entity whose name each token ends, or `NOBODY` (rows, length).
        """
        named = entities != NOBODY
        scores = self.read(self.norm(hidden[named])).float().split(self.sizes, dim=1)
        true = self.facts[entities[named]]  # (mentions, relations)
        losses = [
            nn.functional.cross_entropy(score, true[:, i], ignore_index=NO_VALUE, reduction="sum")
            for i, score in enumerate(scores)
        ]
        total: Tensor = torch.stack(losses).sum() / (true != NO_VALUE).sum().clamp_min(1)
        return total


def _table(world: World) -> Tensor:
    """The number of each entity's value of each relation, `NO_VALUE` where it has none (entities, relations)."""
    places = {kind: {value: i for i, value in enumerate(values)} for kind, values in world.values.items()}
    rows = []
    for name in Mentions(world).names:
        facts = [world.facts.get((name, relation.name)) for relation in RELATIONS]
        rows.append([NO_VALUE if fact is None else places[fact.relation.value][fact.value] for fact in facts])
    return torch.tensor(rows)
