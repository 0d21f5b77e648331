"""Texts and questions as vectors: the nearer, the better.

Encoders are models of their own beside the one that is edited. What a text's vector is does not change, so it is
computed once, when the text comes into the memory, and saved with it.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from lightning_edit.editors.retrieval.retriever import Retriever
from lightning_edit.errors import EditError, StateError


class VectorRetriever(Retriever):
    """Ranks by the inner product of vectors.

    Args:
        model: What the vectors come from; a saved memory is only loaded with the same.
        normalise: Bring vectors to length 1 first: the cosine.
    """

    def __init__(self, model: str, normalise: bool) -> None:
        self.model, self.normalise = model, normalise
        self._vectors: dict[str, Tensor] = {}

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors (m, d) in float32 on the CPU, before they are brought to length 1.

        Args:
            texts: The texts.
        """

    def learn(self, texts: Sequence[str]) -> None:
        """Encode texts that are new, and forget those that are gone.

        Args:
            texts: All texts of the memory.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        vectors = {**self._vectors, **dict(zip(new, self._vectors_of(new), strict=True))}
        self._vectors = {text: vectors[text] for text in dict.fromkeys(texts)}

    def scores(self, texts: Sequence[str], questions: Sequence[str]) -> list[list[float]]:
        """Inner products of each question with all texts.

        Args:
            texts: All texts of the memory, oldest first.
            questions: The questions.
        """
        self.learn(texts)
        known = torch.stack([self._vectors[text] for text in texts])  # (N, d)
        return (self._vectors_of(questions) @ known.T).tolist()

    def state_dict(self) -> dict[str, Any]:
        """The vectors, with the name of what they come from."""
        if not self._vectors:
            return {}
        vectors = torch.stack(list(self._vectors.values()))
        return {"model": self.model, "normalise": self.normalise, "texts": list(self._vectors), "vectors": vectors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved vectors.

        Args:
            state: What `state_dict` gave; without vectors, texts are encoded anew.
        """
        mine = {"model": self.model, "normalise": self.normalise}
        if state and {name: state.get(name) for name in mine} != mine:
            found = {name: state.get(name) for name in mine}
            raise StateError(
                f"the saved memory has vectors of {found}, the retriever is {mine}; expected the same. Give the "
                "editor the retriever it was saved with."
            )
        texts, vectors = (state["texts"], state["vectors"]) if state else ([], [])
        self._vectors = {text: vector.clone() for text, vector in zip(texts, vectors, strict=True)}

    def snapshot(self) -> dict[str, Tensor]:
        """The vectors by their texts; `learn` makes another mapping and leaves this one."""
        return self._vectors

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Have these vectors again.

        Args:
            snapshot: What `snapshot` gave.
        """
        self._vectors = snapshot

    def _vectors_of(self, texts: Sequence[str]) -> Tensor:
        if not texts:
            return torch.zeros(0, 0)
        vectors = self.encode(texts)
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalise else vectors


class TransformersEncoder(VectorRetriever):
    r"""An encoder of transformers, such as Contriever: the mean of its last hidden states over a text's tokens.

    $$v = \frac{1}{T} \sum_{t=1}^{T} h_t$$

    Args:
        model: Hub name or folder of an encoder with its tokenizer.
        normalise: Bring vectors to length 1; Contriever is used without (Izacard et al., 2022).
        batch_size: Texts in one forward.
        max_length: Tokens that are read of a text at most, its last ones: there a prompt has its question.
        device: Where the encoder runs.
    """

    def __init__(
        self, model: str, normalise: bool = False, batch_size: int = 32, max_length: int = 512, device: str = "cpu"
    ) -> None:
        super().__init__(model, normalise)
        self.batch_size, self.max_length, self.device = batch_size, max_length, device
        self._loaded: list[Any] = []  # shared by copies

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Mean-pooled vectors (m, d).

        Args:
            texts: The texts.
        """
        tokenizer, model = self._load()
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors: list[Tensor] = [torch.zeros(0)] * len(texts)
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(torch.device(self.device).type, enabled=False),
        ):
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                batch = tokenizer(
                    [texts[index] for index in chosen],
                    padding=True,
                    truncation=True,
                    max_length=min(self.max_length, tokenizer.model_max_length),
                    return_tensors="pt",
                ).to(self.device)
                hidden = model(**batch).last_hidden_state.float()  # (b, t, d)
                mask = batch["attention_mask"][..., None].to(hidden.dtype)  # (b, t, 1)
                pooled = (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)  # (b, d)
                for index, vector in zip(chosen, pooled.cpu().unbind(), strict=True):
                    vectors[index] = vector.clone()
        return torch.stack(vectors)

    def _load(self) -> Any:
        """The tokenizer and the model, when they are first needed."""
        if not self._loaded:
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.model, truncation_side="left")
                model = AutoModel.from_pretrained(self.model, dtype=torch.float32)
            except (OSError, ValueError) as error:
                raise EditError(
                    f"cannot load the encoder {self.model!r} ({error}); expected the Hub name or the folder of an "
                    "encoder with its tokenizer."
                ) from error
            self._loaded += tokenizer, model.to(self.device).eval().requires_grad_(False)
        return self._loaded


class SentenceTransformersEncoder(VectorRetriever):
    """A model of the package sentence-transformers, which knows its own pooling.

    Args:
        model: Hub name or folder.
        normalise: Bring vectors to length 1.
        batch_size: Texts in one forward.
        device: Where the encoder runs.
    """

    def __init__(self, model: str, normalise: bool = True, batch_size: int = 32, device: str = "cpu") -> None:
        super().__init__(model, normalise)
        self.batch_size, self.device = batch_size, device
        self._loaded: list[Any] = []  # shared by copies

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The package's vectors (m, d).

        Args:
            texts: The texts.
        """
        if not self._loaded:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise EditError(
                    "the package sentence-transformers is missing; install it with `pip install "
                    "sentence-transformers`, or choose an encoder of transformers: "
                    '{"kind": "encoder", "model": ...}.'
                ) from error
            self._loaded.append(SentenceTransformer(self.model, device=self.device))
        found = self._loaded[0].encode(
            list(texts), batch_size=self.batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        return found.float().cpu().clone()  # type: ignore[no-any-return]
