"""Request files on the Hugging Face Hub: how they are named, and what is said where they cannot be had."""

import sys
from pathlib import Path

import pytest

from lightning_edit.data import load_requests
from lightning_edit.data.hub import local_file
from lightning_edit.data.source import RequestSource
from lightning_edit.errors import RequestError

FILES = Path(__file__).parents[1] / "fixtures" / "requests"
ADDRESS = "hf://datasets/someone/edits/folder/zsre.json"


@pytest.fixture
def hub(monkeypatch):
    """The Hub as a table of files; every call is kept."""
    calls = []

    def download(repo, file, *, repo_type, revision):
        calls.append((repo, file, repo_type, revision))
        path = FILES / Path(file).name
        if not path.is_file():
            raise FileNotFoundError("Cannot find the requested files.\nMore about it.")
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return calls


@pytest.mark.parametrize("address", [ADDRESS, Path(ADDRESS)])
def test_a_file_of_a_dataset_is_fetched_and_read(address, hub):
    assert load_requests(address) == load_requests(FILES / "zsre.json")
    assert hub == [("someone/edits", "folder/zsre.json", "dataset", None)]


@pytest.mark.parametrize(("mark", "revision"), [("@v1.0", "v1.0"), ("@refs%2Fpr%2F1", "refs/pr/1")])
def test_a_revision_stands_behind_the_name(mark, revision, hub):
    local_file(f"hf://datasets/someone/edits{mark}/own.jsonl")
    assert hub == [("someone/edits", "own.jsonl", "dataset", revision)]


def test_a_stream_may_be_read_from_the_hub(hub):
    source = RequestSource("hf://datasets/someone/edits/own.jsonl")
    assert [request.id for request in source.upcoming(2)] == ["mayor-1", "2"]
    assert len(hub) == 1


def test_a_file_that_cannot_be_had_says_why_and_what_to_do(hub):
    with pytest.raises(RequestError) as caught:
        load_requests("hf://datasets/someone/edits/none.json")
    assert str(caught.value).startswith("hf://datasets/someone/edits/none.json: cannot be fetched (FileNotFoundError: ")
    assert "Cannot find the requested files.)" in str(caught.value)
    assert "download the file and give its path" in str(caught.value)


def test_offline_the_hub_itself_gives_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        RequestError, match=r"cannot be fetched \(LocalEntryNotFoundError.*Check the address and HF_HUB"
    ):
        load_requests(ADDRESS)


def test_without_the_library_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RequestError, match="found no huggingface_hub, expected it; pip install huggingface_hub"):
        load_requests(ADDRESS)


@pytest.mark.parametrize(
    "address", ["hf://someone/edits/own.jsonl", "hf://datasets/someone/edits", "hf://datasets/edits", "hf://", "hf:/x"]
)
def test_addresses_of_another_form_are_refused(address, hub):
    with pytest.raises(RequestError, match=r"expected hf://datasets/<owner>/<name>\[@<revision>\]/<file>"):
        load_requests(address)
    assert hub == []


def test_a_bare_name_of_a_dataset_is_told_how_to_be_written():
    with pytest.raises(
        RequestError, match="No such file or directory; for a dataset of the Hugging Face Hub write hf:"
    ):
        load_requests("nobody-has/this-folder")
    with pytest.raises(RequestError, match="No such file") as caught:
        load_requests(FILES / "none.json")
    assert "Hugging Face" not in str(caught.value)
