"""The embedded world: a closed, seeded fiction and a small model that knows it.

Names and facts (`facts`), the ways to say them (`relations`), texts (`documents`, `tasks`, `arithmetic`, `corpus`),
edits with exact probes (`edits`), and the model trained on it (`pretraining`, `checkpoint`, `abilities`).
"""

from lightning_edit.data.world.checkpoint import load_world_model, world_model_folder
from lightning_edit.data.world.corpus import next_year
from lightning_edit.data.world.edits import world_requests
from lightning_edit.data.world.facts import World

__all__ = ["World", "load_world_model", "next_year", "world_model_folder", "world_requests"]
