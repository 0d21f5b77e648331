"""The end of pretraining: save the model as it ships, measure what it can do, write the model card.

`SaveWorldModel` is a Lightning callback; it knows where the model goes and in which words its abilities are told.
"""

import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_edit.data.world.abilities import measure_abilities
from lightning_edit.data.world.checkpoint import load_world_model, save_world_model
from lightning_edit.data.world.pretraining import WorldCorpus, WorldPretraining
from lightning_edit.decoding import decode
from lightning_edit.model.language_model import LanguageModel

ABILITIES = {
    "recall": "a fact, in a phrasing in which training showed it",
    "held_out_phrasing": "a fact, in a phrasing in which training never showed it",
    "held_out_question": "a fact, asked in a way in which training never asked for it",
    "novel_phrasing": "a fact, in a phrasing that training never used for any fact",
    "reading": "a fact told in context that contradicts what is known, or is about a stranger",
    "selection": "which of several facts fits a question, or that none does, and then the answer",
    "unknown": 'saying "unknown" about somebody who does not exist',
    "two_hop": "a two-hop question that training never asked, with the step in between",
    "nickname": "a question about a nickname, with the step in between",
    "multiple_choice": "choosing among four answers",
    "event": "a question about an event of several facts",
    "arithmetic": "one or two steps of adding and taking away, written out",
}


class SaveWorldModel(Callback):
    """Save the trained model at the end of the run and write its card.

    Args:
        folder: Where the model goes; a folder ``model`` in the Trainer's root folder where absent.
        questions: Questions asked for each ability.
    """

    def __init__(self, folder: str | None = None, questions: int = 300) -> None:
        self.folder, self.questions = folder, questions
        self.abilities: dict[str, float] = {}
        self._started = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, load what was saved, measure that."""
        corpus = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or not isinstance(corpus, WorldCorpus):
            return
        assert isinstance(pl_module, WorldPretraining)
        minutes = (time.perf_counter() - self._started) / 60
        folder = Path(self.folder or Path(trainer.default_root_dir) / "model")
        size = save_world_model(pl_module.model, corpus.tokenizer, folder)
        lm = LanguageModel(*load_world_model(folder=folder))
        decoder = lambda prompts, tokens: decode(lm, prompts, tokens)  # noqa: E731
        self.abilities = measure_abilities(decoder, corpus.world, self.questions)
        (folder / "README.md").write_text(self._card(corpus, pl_module, minutes, size))

    def summary(self) -> dict[str, float]:
        """Abilities, for the row of the recipe."""
        return dict(self.abilities)

    def _card(self, corpus: WorldCorpus, module: WorldPretraining, minutes: float, size: int) -> str:
        """The model card, in Markdown."""
        config, rows = module.model.config, "\n".join(
            f"| {name} | {ABILITIES[name]} | {value:.1%} |" for name, value in self.abilities.items()
        )
        return f"""# The embedded model

A Llama of {sum(p.numel() for p in module.model.parameters()) / 1e6:.1f} million parameters that knows one invented world
({len(corpus.world.facts)} facts about {sum(corpus.world.sizes.values())} entities) and nothing else: {config.num_hidden_layers} blocks, width {config.hidden_size},
inner width {config.intermediate_size}, {config.num_attention_heads} heads, a byte-level BPE of {config.vocab_size} tokens, weights in bfloat16 ({size / 1e6:.1f} MB in all).

Trained from nothing by `lightning-edit run pretrain_world` on {corpus.rows * corpus.hparams["length"] / 1e6:.1f} million tokens in {minutes:.0f} minutes on two CPU cores.
It is for testing and teaching knowledge editing. All names in it are invented; it is of no use for anything else.

Share of right answers, {self.questions} questions each, greedy decoding:

| ability | what is asked | right |
|---|---|---|
{rows}
"""
