"""The end of pretraining: save the model as it ships, measure what it can do, write the model card.

`SaveWorldModel` is a Lightning callback; it knows where the model goes and in which words its abilities are told.
"""

import inspect
import json
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_edit.data.world.abilities import measure_abilities
from lightning_edit.data.world.checkpoint import load_world_model, save_world_model
from lightning_edit.data.world.facts import World
from lightning_edit.data.world.pretraining import WorldCorpus, WorldPretraining
from lightning_edit.decoding import decode
from lightning_edit.model.language_model import LanguageModel

SPENT = "training.json"
"""File in a model's folder that says what its training took."""

ABILITIES = {
    "recall": "a fact, in a phrasing in which training showed it",
    "held_out_phrasing": "a fact, in a phrasing in which training never showed it",
    "held_out_question": "a fact, asked in a way in which training never asked for it",
    "novel_phrasing": "a fact, in a phrasing that training never used for any fact",
    "reading": "a fact told in context that contradicts what is known, or is about a stranger",
    "selection": "which of up to five facts fits a question, by its value, or that none does",
    "unknown": 'saying "unknown" about somebody who does not exist',
    "two_hop": "a two-hop question that training never asked, with the step in between",
    "nickname": "a question about a nickname, with the step in between",
    "multiple_choice": "choosing among four answers",
    "event": "a question about an event of several facts",
    "arithmetic": "one or two steps of adding and taking away, written out",
}


class SaveWorldModel(Callback):
    """Save the trained model at the end of the run, as it ships; measure it and write its card.

    Args:
        folder: Where the model goes, relative to the Trainer's root folder.
        questions: Questions asked for each ability; 0 leaves out measuring and card.
        every_n_batches: Save the model so far after every so many batches, too; 0 for never.
    """

    def __init__(self, folder: str = "model", questions: int = 300, every_n_batches: int = 250) -> None:
        self.folder, self.questions, self.every_n_batches = folder, questions, every_n_batches
        self.abilities: dict[str, float] = {}
        self._begin = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save the model so far, so that a long run that is cut short leaves something to look at."""
        if self.every_n_batches and (batch_idx + 1) % self.every_n_batches == 0:
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, load what was saved, measure that."""
        if (folder := self._save(trainer, pl_module)) and self.questions:
            self.abilities = write_card(folder, _corpus(trainer).world, self.questions)

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> Path | None:
        """The folder of the saved model; None on every process but the first."""
        if not isinstance(pl_module, WorldPretraining):
            raise TypeError(f"SaveWorldModel found a {type(pl_module).__name__}, expected WorldPretraining.")
        if not trainer.is_global_zero:
            return None
        folder, corpus = Path(trainer.default_root_dir) / self.folder, _corpus(trainer)
        save_world_model(pl_module.model, corpus.tokenizer, folder)
        spent = {
            "tokens": (trainer.fit_loop.total_batch_idx + 1) * corpus.batch_size * corpus.length,
            "minutes": (time.perf_counter() - self._begin) / 60,
        }
        if pl_module.start is not None:
            before = json.loads((Path(trainer.default_root_dir) / pl_module.start / SPENT).read_text())
            spent = {name: value + before[name] for name, value in spent.items()}
        (folder / SPENT).write_text(json.dumps(spent) + "\n")
        return folder

    def summary(self) -> dict[str, float]:
        """Abilities, for the row of the recipe."""
        return dict(self.abilities)


def _corpus(trainer: Trainer) -> WorldCorpus:
    corpus = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(corpus, WorldCorpus):
        raise TypeError(f"SaveWorldModel found data of {type(corpus).__name__}, expected WorldCorpus.")
    return corpus


def write_card(folder: Path, world: World, questions: int = 300) -> dict[str, float]:
    """Measure the model in a folder and write its card there.

    Args:
        folder: What `SaveWorldModel` left.
        world: The world the model was trained on.
        questions: Questions asked for each ability.

    Returns:
        Share of right answers by ability.
    """
    lm = LanguageModel(*load_world_model(folder=folder))
    spent = json.loads((folder / SPENT).read_text())
    abilities = measure_abilities(lambda prompts, tokens: decode(lm, prompts, tokens), world, questions)
    rows = [f"| {name} | {ABILITIES[name]} | {value:.1%} |" for name, value in abilities.items()]
    config, size = lm.model.config, sum(file.stat().st_size for file in folder.iterdir())
    parameters = sum(parameter.numel() for parameter in lm.model.parameters())
    text = f"""# The embedded model

    A Llama of {parameters / 1e6:.1f} million parameters that knows one invented world ({len(world.facts):,} facts about
    {sum(world.sizes.values())} entities) and nothing else: {config.num_hidden_layers} blocks, width
    {config.hidden_size}, inner width {config.intermediate_size}, {config.num_attention_heads} heads, a byte-level BPE
    of {config.vocab_size:,} tokens, weights in bfloat16 ({size / 1e6:.1f} MB in all).

    Trained from nothing by `lightning-edit run pretrain_world` on {spent["tokens"] / 1e6:.1f} million tokens, in
    {spent["minutes"]:.0f} minutes on two CPU cores. Beside the next token it had to learn that an entity's attributes
    can be read linearly half-way up, at the last token of the entity's name, which is where large models recall them;
    the classifiers that read were thrown away. It is for testing and teaching knowledge editing. All names in it are
    invented, and it is of no use for anything else.

    Share of right answers, {questions} questions each, greedy decoding:

    | ability | what is asked | right |
    |---|---|---|
    """
    (folder / "README.md").write_text(inspect.cleandoc(text) + "\n" + "\n".join(rows) + "\n")
    return abilities
