"""One HTTP request with an end: sent once, read within a time limit, its failures told apart.

Knows urllib and status codes. Refuses to know what is asked and how often to try. Redirections are not followed,
because the key would travel along to wherever they point; proxies of the environment are used, except for this machine
itself.
"""

import email.utils
import http.client
import ipaddress
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

MOST_BYTES = 16 * 2**20
_AGAIN = frozenset((408, 409, 425, 429))
_EVERY = frozenset((401, 402, 403, 404, 405, 410))  # would be said to any other request as well
_SHOWN = 200  # characters of an error's body that a message repeats


class Failure(Exception):
    """A request brought no reply.

    Args:
        reason: What happened.
        refused: Whether every other request would be refused alike.
        retry_after: Seconds to wait before the next try, where the server says so; never negative.
        final: Whether this very request is not worth another try.
    """

    def __init__(
        self, reason: str, refused: bool = False, retry_after: float | None = None, final: bool = False
    ) -> None:
        super().__init__(reason)
        self.refused, self.retry_after, self.final = refused, retry_after, final


def post(url: str, body: bytes, key: str | None, timeout: float) -> bytes:
    """Send a JSON body and return the body of the response.

    Args:
        url: The address.
        body: JSON, encoded.
        key: Sent as bearer token; None sends none.
        timeout: Seconds that may pass without a byte, and until the response is complete.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "lightning-edit"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    deadline = time.monotonic() + timeout
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with _opener(url).open(request, timeout=timeout) as response:
            return _read(response, deadline)
    except urllib.error.HTTPError as error:
        with error:
            raise _of_status(error, key) from None
    except TimeoutError:
        raise Failure(f"no complete response within {timeout:g} s") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None)
        if isinstance(reason, TimeoutError):
            raise Failure(f"no connection within {timeout:g} s") from None
        raise Failure(f"no response ({type(error).__name__}: {_hidden(str(reason or error), key)})") from None


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection; it comes back as an HTTPError with its own status."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    here = [urllib.request.ProxyHandler({})] if _is_here(urlsplit(url).hostname or "") else []
    return urllib.request.build_opener(_Stay(), *here)


def _is_here(host: str) -> bool:
    """Whether a host is this machine, which no proxy can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(response: Any, deadline: float) -> bytes:
    """The whole body, unless it comes too slowly or never ends."""
    parts, size = [], 0
    while part := response.read1(2**16):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > MOST_BYTES:
            raise Failure(f"found a response of more than {MOST_BYTES} bytes")
    return b"".join(parts)


def _of_status(error: urllib.error.HTTPError, key: str | None) -> Failure:
    """What a status other than success means for this request and for others."""
    try:
        said = error.read(4 * _SHOWN).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        said = ""
    said = " ".join(_hidden(said, key).split())[:_SHOWN]
    reason = f"status {error.code}" + (f": {said}" if said else "")
    again = error.code in _AGAIN or error.code >= 500
    wait = _seconds(error.headers.get("Retry-After")) if again else None
    refused = error.code in _EVERY or 300 <= error.code < 400
    return Failure(reason, refused, wait, final=not again)


def _seconds(value: str | None) -> float | None:
    """What `Retry-After` says, as a number of seconds or as a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - time.time())


def _hidden(text: str, key: str | None) -> str:
    """The text without the key, in case a server repeats what it was sent."""
    return text.replace(key, "***") if key else text
