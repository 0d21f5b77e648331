"""What the geometry jobs take from a recipe: where representations are read, and who edits what.

Knows names and numbers only, as a command line gives them.
"""

from dataclasses import dataclass, field

from lightning_edit.geometry.activations import Part, Pooling
from lightning_edit.geometry.relative_change import Aggregation
from lightning_edit.jobs.inputs import EMBEDDED, Choice


@dataclass
class Reading:
    """Where and on what representations are read.

    Args:
        layers: Numbers of the blocks, or paths such as decoder.block.3; all where absent.
        parts: Places in each: the output projection's `output`, its `input`, the outputs of the projections `up` to it.
        texts: Text or JSONL file; the embedded world's documents, or else what the model itself writes, where absent.
        samples: Samples the spectra are made of, about; four for each feature of the widest place where absent.
        max_length: Tokens of a text that are read.
        batch_size: Texts in one forward.
        pooling: Which samples a text gives: all its tokens, the last one, or their mean.
        aggregation: How samples become one rate, mean_abs (the public code's) or rms (Eq. 10).
        sketch: Samples that are kept of the unedited model.
        subspaces: Sizes of the principal subspaces whose stability is measured; the paper's where absent.
        first_order: Texts on which the first order is tested; 0 for none.
        seed: Seed of the random control.
    """

    layers: list[int | str] | None = None
    parts: list[Part] = field(default_factory=lambda: ["output"])
    texts: str | None = None
    samples: int | None = None
    max_length: int = 128
    batch_size: int = 16
    pooling: Pooling = "tokens"
    aggregation: Aggregation = "mean_abs"
    sketch: int = 512
    subspaces: list[int] | None = None
    first_order: int = 8
    seed: int = 0


@dataclass
class Edits:
    """Who edits what.

    Args:
        editors: Label to an editor's options; `editor` among them is its name (memit if absent).
        shared: Options of all editors.
        requests: Request file; "embedded" for requests about the embedded world.
        choice: random draws the requests of a file from the seed; first takes the first ones.
        corpus: Text or JSONL file to take key statistics from; the embedded world's documents, or else the model's own
            text, where absent.
        statistics: Safetensors file of key statistics of this model, instead of a corpus.
        tokens: Tokens read for key statistics at most; twenty for each unit of the inner width where absent.
        seed: Seed of the requests.
    """

    editors: dict[str, dict[str, object]] = field(default_factory=lambda: {"memit": {}})
    shared: dict[str, object] | None = None
    requests: str = EMBEDDED
    choice: Choice = "random"
    corpus: str | None = None
    statistics: str | None = None
    tokens: int | None = None
    seed: int = 0
