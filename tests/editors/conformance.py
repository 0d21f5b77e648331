"""Every registered editor, small and quick, and what can be asked of any of them; another process loads them again.

Run as a script, `conformance.py FOLDER`, it loads the module of every folder in FOLDER with `load_edits`, asks it, lets
it go on, and writes what came of it to `FOLDER/NAME/fresh.pt`.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from lightning_edit import load_edits
from lightning_edit.editors import get_editor
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.examples import make_batches, make_examples
from lightning_edit.editors.mend.factors import read_factors
from lightning_edit.editors.mend.network import MENDNetwork
from lightning_edit.editors.mend.training import size_of
from lightning_edit.editors.retrieval.scr import SCR
from lightning_edit.editors.storage import save_state
from lightning_edit.evaluation.likelihood import log_likelihoods
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.module import EditableModule
from lightning_edit.requests import EditRequest
from tests.editors.conftest import fact, facts

Undo = Literal["any", "last", "none"]
UNRELATED = ["She works for", "He was born in", "Is it large?"]  # no word of a fact is in them
PROMPTS = [request.prompt for request in facts(4)] + UNRELATED

LEDGER: dict[str, Any] = {"layers": [0, 1], "steps": 4, "clamp": 2.0, "contexts": ["Well. "], "prior_weight": 5.0}
NULL: dict[str, Any] = {name: LEDGER[name] for name in ("layers", "steps", "clamp", "contexts")}
NULL |= {"nullspace_energy": 0.05, "l2": 0.1}
DESCENT: dict[str, Any] = {"lr": 0.02, "steps": 3}
ADAPTER: dict[str, Any] = {**DESCENT, "rank": 2}
WORDS = {"style": "base", "select": "{facts} ? {question} :", "answer": "{fact} {prompt}"}
TEXTS: dict[str, Any] = {"top_k": 1, "max_new_tokens": 16, "templates": WORDS}
SIDE: dict[str, Any] = {"layer": 1, "lr": 1.0, "steps": 20, "alpha": 0.2, "beta": 1.5, "gamma": 1.0, "density": 0.5}
APART: dict[str, Any] = {"contexts": ["Well. "], "texts": UNRELATED, "unrelated": 3}
VALUES: dict[str, Any] = {"layer": 1, "radius": 0.05, "lr": 0.5, "steps": 20}
WI: dict[str, Any] = {"preset": "gpt2-xl", "layer": "decoder.block.1", "part": "up"}
DECODER: dict[str, Any] = {"layer": "decoder.block.1", "replacement": "all"}
SHOWN = [
    {"id": f"d{number}", "prompt": f"Near {number} stands", "target": f"tower {number}", "paraphrases": ["There is"]}
    for number in range(2)
]


@dataclass(frozen=True)
class Case:
    """An editor, and what its method can do.

    Args:
        editor: Its name.
        options: Its options.
        undo: Which requests it can take back: `any`, those of the `last` commits, or `none`.
        silent: Whether there are prompts that its edits leave untouched, bit for bit.
        listens: Whether the model runs while it edits, so that it can fail there.
        restricted: Whether something stands between the exact weights and those of the model, and so remains of an edit
            that was taken back.
        slack: How far off answers may be after an undo.
        family: The model's: `llama`, or `t5`, where an encoder reads the prompt.
    """

    editor: str
    options: dict[str, Any] = field(default_factory=dict)
    undo: Undo = "any"
    silent: bool = False
    listens: bool = True
    restricted: bool = False
    slack: float = 1e-6
    family: Literal["llama", "t5"] = "llama"


CASES: dict[str, Case] = {
    "memit": Case("memit", LEDGER),
    "memit absorbed": Case("memit", {**LEDGER, "aligned": False}, "none"),
    "alphaedit": Case("alphaedit", NULL),
    "memorize_latest": Case("memorize_latest", LEDGER, "none"),
    "rome": Case("rome", {**LEDGER, "layers": [1]}, "none"),
    "emmet": Case("emmet", LEDGER, "none"),
    "pmet": Case("pmet", LEDGER),
    "rect": Case("rect", LEDGER, restricted=True),
    "prune": Case("prune", LEDGER, restricted=True),
    "l1": Case("l1", {**LEDGER, "layers": [1], "tolerance": 1e-9}, slack=1e-3),  # which a solver finds step by step
    "sensitivity_aware": Case("sensitivity_aware", {**LEDGER, "layers": [1]}),
    "ft_l": Case("ft_l", {**DESCENT, "layers": [1], "norm_constraint": 0.1}, "last"),
    "ft_m": Case("ft_m", {**DESCENT, "layers": [1]}, "last"),
    "lora": Case("lora", ADAPTER, "last"),
    "lora merged": Case("lora", {**ADAPTER, "policy": "merge"}, "last"),
    "lora per commit": Case("lora", {**ADAPTER, "policy": "per_commit"}, "last"),
    "adalora": Case("adalora", {**DESCENT, "steps": 4, "rank": 2, "init_rank": 3}, "last"),
    "mend": Case("mend", {}, "last"),
    "grace": Case("grace", VALUES, silent=True),
    "wise": Case("wise", {**SIDE, **APART}, "last", silent=True),
    "scr": Case("scr", TEXTS, silent=True, listens=False),
    "scr by vectors": Case("scr", {**TEXTS, "retriever": "encoder"}, listens=False),  # which finds something always
    "ice": Case("ice", TEXTS, silent=True, listens=False),
    "ike": Case("ike", {**TEXTS, "demonstrations": SHOWN}, silent=True, listens=False),
    "hybrid": Case("hybrid", {"editor": "memit", "editor_options": LEDGER, "memory": TEXTS}),
    "hybrid of lora": Case(
        "hybrid", {"editor": "lora", "editor_options": {**DESCENT, "rank": 2}, "memory": TEXTS}, "last"
    ),
}
CASES |= {
    "ft_m on t5": Case("ft_m", {**DESCENT, "layers": ["decoder.block.1"]}, "last", family="t5"),
    "lora on t5": Case("lora", ADAPTER, "last", family="t5"),
    "mend on t5": Case("mend", {}, "last", family="t5"),
    "grace on t5": Case("grace", {**VALUES, **DECODER, "radius": 1e-3}, silent=True, family="t5"),
    "wise on t5": Case("wise", {**SIDE, **APART, "preset": "gpt2-xl", "layer": "decoder.block.1"}, "last", family="t5"),
    "scr on t5": Case("scr", TEXTS, silent=True, listens=False, family="t5"),
    "ft_m at wi": Case("ft_m", {**DESCENT, "layers": ["encoder.block.1"], "part": "up"}, "last", family="t5"),
    "grace at gate": Case("grace", {**VALUES, "part": "gate", "replacement": "all"}, silent=True),
    "wise at wi": Case("wise", {**SIDE, **APART, **WI}, "last", family="t5"),
}
Make = Callable[[str], EditableModule]


def make_editor(name: str, module: EditableModule, folder: Path, statistics: Any) -> Editor:
    """An editor that is ready for its first edit."""
    options = dict(CASES[name].options)
    if CASES[name].editor == "mend":
        options["checkpoint"] = str(file := folder / f"{name}.pt")
        if not file.is_file():
            train_network(module.language_model, file)
    if options.get("retriever") == "encoder":
        options["retriever"] = str(path := folder / "encoder")
        if not path.is_dir():
            write_encoder(module.tokenizer, path)
    editor = get_editor(CASES[name].editor, **options)
    editor.prepare(module, statistics=statistics if editor.needs_statistics else None)
    return editor


def write_encoder(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """A tiny random encoder with a model's tokenizer."""
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(**sizes, intermediate_size=32, max_position_embeddings=256, initializer_range=0.5)
        BertModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)


def train_network(lm: LanguageModel, path: Path) -> None:
    """A network of MEND that has seen some gradients and learned nothing: it makes steps downhill."""
    paths = [lm.site(1).name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MENDNetwork({path: size_of(lm, path) for path in paths}, rank=4, rate=0.05)
    with lm.borrow():
        factors, _ = read_factors(lm, paths, make_batches(lm, make_examples(lm, facts(3)), 3)[0])
        network.train()(factors)
    save_state(path, {"version": 1, "identity": lm.identity, "network": network.to_plain()})


@contextmanager
def obedient() -> Iterator[None]:
    """SCR hears from the model that the facts it lists fit: a random model says nothing that can be understood."""

    def agree(self: SCR, lm: LanguageModel, asked: Sequence[str], *_: object) -> dict[str, str]:
        return {text: text.partition(" ? ")[0] for text in asked}

    before, SCR._replies = SCR._replies, agree  # type: ignore[method-assign]
    try:
        yield
    finally:
        SCR._replies = before  # type: ignore[method-assign]


def answers(module: EditableModule, prompts: Sequence[str] = PROMPTS, **options: Any) -> dict[str, Any]:
    """What a model writes behind some prompts, all in one batch, and how likely it finds a target there."""
    likely = log_likelihoods(module.language_model, prompts, ["the city"] * len(prompts), "sum")
    return {"written": module.generate(list(prompts), 5, **options), "likely": likely}


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether answers are the same, bit for bit."""
    return one["written"] == other["written"] and torch.equal(one["likely"], other["likely"])


def parameters(module: EditableModule) -> dict[str, Tensor]:
    """A copy of all weights."""
    return {name: value.clone() for name, value in module.model.state_dict().items()}


def second() -> list[EditRequest]:
    """What is edited after `facts(2)`: a new fact, and one that contradicts."""
    return [fact(2), fact(0, "of", id="new")]


def main() -> None:
    """Load every folder as another process would, ask, go on, and write down what came of it."""
    torch.set_num_threads(1)
    for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        with obedient():
            module = load_edits(folder)
            found = answers(module)
            module.editor.edit(module, second())
            result = {"answers": found, "after": answers(module), "state": module.editor.state_dict()}
        save_state(folder / "fresh.pt", result)


if __name__ == "__main__":
    main()
