"""A language model behind an OpenAI-compatible endpoint: OpenAI, vLLM, llama.cpp, Ollama and many others.

Knows one request, `POST <base_url>/chat/completions` with one user turn, and what may go wrong with it. How a single
request is sent and read stands in `transport.py`. The key is read from the environment each time it is needed and kept
nowhere: not in the object, its repr, a pickle, a cache, a message.
"""

import json
import os
import random
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event, Lock
from typing import Any
from urllib.parse import urlsplit

from lightning_edit.errors import EditError
from lightning_edit.llm.assistant import Reply
from lightning_edit.llm.transport import Failure, post

LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for


class Endpoint:
    """A chat model over HTTP.

    Failed requests (no connection, timeout, status 408, 409, 425, 429 or 5xx, a body that is no reply) are sent again,
    after `backoff` seconds, then twice as long each time, or as long as the server asks for. What is refused for good
    (a wrong key, an unknown model) is not, and then nothing more is sent at all.

    Args:
        base_url: Address up to `/chat/completions`, such as `https://api.openai.com/v1` or `http://localhost:8000/v1`.
        model: Name of the model at the endpoint.
        key_variable: Environment variable that holds the key; without one no key is sent.
        system: What the system says first; None for no such turn.
        max_tokens: Longest reply.
        temperature: 0 is greedy, as far as a server keeps to it.
        timeout: Seconds that may pass without a byte, and until a response is complete.
        retries: How often a failed request is sent again.
        backoff: Seconds before the first time.
        concurrency: Requests under way at once.
        patience: Requests in a row that may fail for good before the rest is not sent any more.
        extra: Further fields of the request's body; they win over those above. A field set to None is left out.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_variable: str = "OPENAI_API_KEY",
        system: str | None = None,
        max_tokens: int = 512,
        temperature: float = 0.0,
        timeout: float = 60.0,
        retries: int = 4,
        backoff: float = 1.0,
        concurrency: int = 8,
        patience: int = 16,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.base_url = _checked(base_url)
        self.model, self.key_variable, self.system = model, key_variable, system
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self.concurrency, self.patience = concurrency, patience
        self.settings = {"temperature": temperature, "max_tokens": max_tokens, **(extra or {})}
        if timeout <= 0 or retries < 0 or backoff < 0 or concurrency < 1 or patience < 1:
            raise EditError(
                f"found timeout={timeout}, retries={retries}, backoff={backoff}, concurrency={concurrency}, "
                f"patience={patience}; expected a positive timeout, no negative number, and at least one request"
            )

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r})"

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.model

    @property
    def identity(self) -> str:
        """Place, model and settings; nothing of the key."""
        return json.dumps([self.base_url, self.model, self.system, self.settings], sort_keys=True, default=str)

    def ask(self, prompts: Sequence[str]) -> Generator[tuple[int, Reply], None, None]:
        """Replies as they arrive, each with the number of its prompt.

        Args:
            prompts: What the user says, one conversation each.
        """
        run = _Run(self.patience)
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="endpoint")
        try:
            key = self._key()
            numbers = {pool.submit(self._reply, prompt, index, key, run): index for index, prompt in enumerate(prompts)}
            for done in as_completed(numbers):
                yield numbers[done], done.result()
        finally:
            run.stop("the asking was broken off")
            pool.shutdown(cancel_futures=True)

    def _reply(self, prompt: str, index: int, key: str | None, run: "_Run") -> Reply:
        """One conversation, tried until it succeeds, is refused, or has failed too often."""
        jitter = random.Random(index)  # spreads the tries of many threads; nobody else's random state is touched
        attempt = 0
        while not run.over.is_set():
            try:
                text = _content(post(f"{self.base_url}/chat/completions", self._body(prompt), key, self.timeout))
            except Failure as failure:
                if failure.refused:
                    run.stop(f"{failure} ({self._key_hint(key)})")
                    return Reply(None, run.reason)
                if failure.final or attempt == self.retries:
                    run.count_failure(failure)
                    return Reply(None, f"{failure}, {attempt + 1} times over")
                wait = self.backoff * 2**attempt * (0.75 + jitter.random() / 2)
                wait = wait if failure.retry_after is None else failure.retry_after
                run.over.wait(min(wait, LONGEST_WAIT))
                attempt += 1
            else:
                run.count_success()
                return Reply(text)
        return Reply(None, f"not asked: {run.reason}")

    def _body(self, prompt: str) -> bytes:
        opening = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages = [*opening, {"role": "user", "content": prompt}]
        fields = {"model": self.model, "messages": messages, **self.settings}
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()

    def _key(self) -> str | None:
        """The key, checked so that no error of a library can repeat it."""
        key = os.environ.get(self.key_variable, "").strip()
        if not key.isascii() or any(character.isspace() or not character.isprintable() for character in key):
            raise EditError(f"the environment variable {self.key_variable} holds more than a key; correct it")
        return key or None

    def _key_hint(self, key: str | None) -> str:
        return f"the environment variable {self.key_variable} is {'set' if key else 'not set'}"


class _Run:
    """What the threads of one call share: whether to go on, and how many requests in a row have failed."""

    def __init__(self, patience: int) -> None:
        self.over = Event()
        self.reason = ""
        self._patience, self._failed, self._lock = patience, 0, Lock()

    def stop(self, reason: str) -> None:
        with self._lock:
            self.reason = self.reason or reason
            self.over.set()

    def count_success(self) -> None:
        with self._lock:
            self._failed = 0

    def count_failure(self, failure: Failure) -> None:
        with self._lock:
            self._failed += 1
            enough = self._failed >= self._patience
        if enough:
            self.stop(f"{self._patience} requests in a row have failed, the last with: {failure}")


def _content(raw: bytes) -> str:
    """The text of the first choice; anything else is a failure that is worth another try."""
    try:
        content = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        shown = raw[:80].decode("utf-8", "replace")
        raise Failure(f"found a body that is no chat completion ({type(error).__name__}): {shown!r}") from error
    if not isinstance(content, str):
        raise Failure(f"found a reply of type {type(content).__name__}, expected a text")
    return content


def _checked(base_url: str) -> str:
    """The address without a slash at its end; what could carry a secret into messages and caches is refused."""
    parts = urlsplit(base_url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise EditError(
            "found a name, a password or a query in base_url, expected none, since addresses are shown and stored; put "
            "the key into the environment"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EditError(f"found base_url={base_url!r}, expected http(s)://<host>/<path>, such as https://host/v1")
    return base_url.rstrip("/").removesuffix("/chat/completions")
