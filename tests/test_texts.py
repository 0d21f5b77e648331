"""Text files as documents."""

from pathlib import Path

from lightning_edit.data.text import read_texts


def test_blank_lines_part_documents_whatever_space_stands_on_them(tmp_path: Path) -> None:
    file = tmp_path / "wiki.txt"
    file.write_text(
        " \n = Lobster = \n \n It lives in the sea . \n It is blue . \n\t\n\n\nNext.\r\n\r\nLast.\n", newline=""
    )
    assert read_texts(file) == ["= Lobster =", "It lives in the sea . \n It is blue .", "Next.", "Last."]
