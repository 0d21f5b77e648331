"""Representations for the geometry jobs: at which places, on which texts, and their spectra.

Knows a language model and texts. Refuses to know who edits.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

from lightning_edit.data.text import read_texts
from lightning_edit.geometry.activations import Point, Pooling, ffn_points, read_rows
from lightning_edit.geometry.metrics import RepresentationSpectrum
from lightning_edit.geometry.reference import Batch, float64_home, on_device, sample_count
from lightning_edit.jobs.geometry_settings import Reading
from lightning_edit.jobs.inputs import EMBEDDED, sample_corpus
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest


def points_of(lm: LanguageModel, reading: Reading) -> list[Point]:
    """The places that are measured.

    Args:
        lm: The language model.
        reading: Which.
    """
    return ffn_points(lm, reading.layers or [site.layer for site in lm.sites], reading.parts)


def read_batches(lm: LanguageModel, reading: Reading, source: str, stream: Sequence[EditRequest] = ()) -> list[Batch]:
    """Batches of tokens until they give enough samples; none of the texts are those of the key statistics.

    Args:
        lm: The language model.
        reading: How much, and from where.
        source: Where requests come from: `embedded` reads the embedded world's documents.
        stream: Requests whose texts the model continues, where there is no text.
    """
    wide = any(part != "output" for part in reading.parts)
    wanted = reading.samples or 4 * max(site.inner if wide else site.width for site in lm.sites)
    texts: Iterable[str]
    if reading.texts is not None:
        texts = read_texts(reading.texts)
    elif source == EMBEDDED:
        from lightning_edit.data.world import World
        from lightning_edit.data.world.corpus import documents

        texts = (document.text for document in documents(World(), seed=2_000))
    else:
        texts = sample_corpus(lm, stream, wanted if reading.pooling == "tokens" else 64 * wanted, seed=1)
    found: list[Batch] = []
    count, pending = 0, iter(texts)
    while count < wanted and (part := list(islice(pending, reading.batch_size))):
        encoded = lm.encode(part, max_length=min(reading.max_length, lm.max_length))
        tokens = {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
        found.append({name: value.cpu() for name, value in lm.layout.text_inputs(lm, tokens).items()})
        count += sample_count(found[-1], reading.pooling)
    return found


def read_spectra(
    lm: LanguageModel, batches: Sequence[Batch], points: Sequence[Point], pooling: Pooling, per_sample: bool = False
) -> dict[str, RepresentationSpectrum]:
    """Spectra of the model as it is, by place.

    Args:
        lm: The language model, borrowed.
        batches: The texts.
        points: The places.
        pooling: Which samples a text gives.
        per_sample: Subtract from each sample its own mean over the features first: the mistake that manufactures a
            direction without variance.
    """
    found: dict[str, RepresentationSpectrum] = {}
    for batch in batches:
        for name, rows in read_rows(lm.model, on_device(lm, batch), points, pooling).items():
            if name not in found:
                found[name] = RepresentationSpectrum(rows.shape[-1], rows.dtype).to(float64_home(rows.device))
            found[name].update(rows - rows.mean(dim=-1, keepdim=True) if per_sample else rows)
    return found
