"""The three commands, as typed."""

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_edit.cli import main
from lightning_edit.editors.registry import EDITORS
from lightning_edit.recipes import shipped_recipes


def test_ls_names_every_recipe_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_recipes())
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_ls_editors_names_every_editor_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "editors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EDITORS)
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_cp_copies_a_recipe_that_runs_from_its_new_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "mine.yaml"
    assert main(["cp", "edit_model", str(target)]) == 0
    assert target.read_text() == shipped_recipes()["edit_model"].read_text()
    with pytest.raises(SystemExit) as exit_:
        main(["run", str(target), "--help"])
    assert exit_.value.code == 0
    assert "--requests" in capsys.readouterr().out


def test_cp_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", "edit_model", str(tmp_path)]) == 0
    file = tmp_path / "edit_model.yaml"
    file.write_text("mine")
    assert main(["cp", "edit_model", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_run_alone_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    assert "usage: lightning-edit run NAME_OR_FILE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--output=x", "quickstart"], "found '--output=x' where the recipe belongs"),
        (["run", "quickstrat"], "neither a recipe nor a file named 'quickstrat'; the recipes are "),
        (["cp", "quickstrat", "x.yaml"], "neither a recipe nor a file"),
        (["run", "edit_model", "--runs=a"], "is one job and has no runs to choose"),
    ],
)
def test_mistakes_are_one_line_and_status_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_every_shipped_recipe_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    required = {"edit_model": ["--model=m", "--requests=r.jsonl"]}
    with pytest.raises(SystemExit) as exit_:
        main(["run", name, *required.get(name, []), "--print_config"])
    assert exit_.value.code == 0
    assert ":" in capsys.readouterr().out


def test_the_module_is_the_command_and_ls_needs_no_torch() -> None:
    code = "import sys; from lightning_edit.cli import main; main(['ls']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    module = [sys.executable, "-m", "lightning_edit", "ls"]
    assert subprocess.run(module, capture_output=True, text=True, timeout=60, check=True).stdout == done.stdout
