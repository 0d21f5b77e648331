"""A request file that lies on the Hugging Face Hub, fetched into the Hub's own cache.

Knows one way to name such a file, the one of `huggingface_hub`'s file system:
`hf://datasets/<owner>/<name>[@<revision>]/<file>`. Refuses to know what is in it: a JSON array or JSON lines, like any
other request file. Parquet and loading scripts are not read.
"""

import re
from pathlib import Path
from urllib.parse import unquote

from lightning_edit.errors import RequestError, reason_of

_ADDRESS = re.compile(r"(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)")
_FORM = "hf://datasets/<owner>/<name>[@<revision>]/<file>"


def local_file(path: str | Path) -> Path:
    """Where a request file lies on this machine; a file of the Hub is fetched first, or found in the cache.

    Args:
        path: A path, or an address of the form `hf://datasets/<owner>/<name>[@<revision>]/<file>`.
    """
    text = str(path)
    if not re.match(r"hf:/{1,2}", text):  # a Path keeps one of the two slashes
        return _known(Path(path))
    match = _ADDRESS.fullmatch(re.sub(r"^hf:/{1,2}datasets/", "", text))
    if match is None or not re.match(r"hf:/{1,2}datasets/", text):
        raise RequestError(f"found {text!r}, expected {_FORM}, with the file's path inside the dataset; correct it")
    revision = match["revision"] and unquote(match["revision"])
    return _fetch(match["repo"], match["file"], revision, text)


def _fetch(repo: str, file: str, revision: str | None, address: str) -> Path:
    """The file in the Hub's cache."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise RequestError(f"{address}: found no huggingface_hub, expected it; pip install huggingface_hub") from error
    try:
        return Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise RequestError(
            f"{address}: cannot be fetched ({type(error).__name__}: {reason_of(error)}); expected a public file, or "
            "one that you may read, and a connection, or the file in the Hub's cache. Check the address and "
            "HF_HUB_OFFLINE, or download the file and give its path."
        ) from error


def _known(path: Path) -> Path:
    """A local path; where there is none and it reads like a dataset's name, the error says how to write that."""
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", path.as_posix()) and not path.parent.is_dir():
        raise RequestError(f"{path}: No such file or directory; for a dataset of the Hugging Face Hub write {_FORM}")
    return path
