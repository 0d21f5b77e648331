"""The tokenizer of the embedded model: byte-level BPE with single digits.

It is trained on the language of other worlds, so it knows the words but splits every name into syllables.
"""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lightning_edit.data.world.corpus import tokenizer_text

END = "<|end|>"
PAD = "<|pad|>"


def train_tokenizer(vocab_size: int = 2048, seed: int = 0, documents: int = 40_000) -> PreTrainedTokenizerFast:
    """Train the tokenizer.

    Args:
        vocab_size: Number of tokens, bytes and the two special ones included.
        seed: Seed of the worlds whose language is read.
        documents: How many documents are read.
    """
    core = Tokenizer(models.BPE())
    # A space goes before the first word, so that a name is the same tokens at the start of a text as within it.
    core.normalizer = normalizers.Prepend(" ")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(tokenizer_text(seed, documents), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )
