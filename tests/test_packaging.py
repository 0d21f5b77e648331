"""What a user installs: the wheel, built from the sdist, in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import lightning_edit
from lightning_edit.recipes import shipped_recipes

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "lightning_edit", "callbacks", "recipes")

pytestmark = pytest.mark.slow


def call(*command: str | Path, folder: Path) -> str:
    """Run a command that must succeed, away from the checkout; what it printed."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is made of, links kept as links."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".mypy_cache")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
    call(sys.executable, "-c", build, "build_sdist", folder, folder=source)
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    [unpacked] = [path for path in folder.iterdir() if path.is_dir()]
    call(sys.executable, "-c", build, "build_wheel", folder, folder=unpacked)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a clean environment with the wheel in it; what it depends on is borrowed from this one."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, folder=folder)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python.parent


def test_the_wheel_holds_the_package_and_nothing_beside_it(source: Path, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert {name.split("/")[0] for name in inside} == {"lightning_edit"}
    expected = {
        str(Path(folder, file).relative_to(source))
        for folder, _, files in os.walk(source / "lightning_edit", followlinks=True)
        for file in files
    }
    assert inside == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_command_runs(installed: Path, tmp_path: Path) -> None:
    listed = call(installed / "lightning-edit", "ls", folder=tmp_path).splitlines()
    assert [line.split()[0] for line in listed] == list(shipped_recipes())
    version = call(installed / "python", "-m", "lightning_edit", "--version", folder=tmp_path)
    assert version.strip() == f"lightning-edit {lightning_edit.__version__}"


def test_the_installed_package_is_the_one_that_is_imported(installed: Path, tmp_path: Path) -> None:
    code = "import lightning_edit.callbacks, lightning_edit as p; print(p.__file__, lightning_edit.callbacks.__file__)"
    for path in call(installed / "python", "-c", code, folder=tmp_path).split():
        assert Path(path).is_relative_to(installed.parent)


def test_importing_the_package_imports_no_torch_and_every_public_name_resolves(installed: Path, tmp_path: Path) -> None:
    code = "import sys, lightning_edit; sys.exit('torch' in sys.modules)"
    call(installed / "python", "-c", code, folder=tmp_path)
    for name in lightning_edit.__all__:
        assert getattr(lightning_edit, name).__name__ == name
    assert set(lightning_edit.__all__) <= set(dir(lightning_edit))
    with pytest.raises(AttributeError, match="no attribute 'EditModule'; it offers EditRequest"):
        _ = lightning_edit.EditModule


def test_the_links_of_the_checkout_are_relative() -> None:
    for name in ("callbacks", "recipes"):
        link = ROOT / "lightning_edit" / name
        assert link.is_symlink()
        assert os.readlink(link) == f"../{name}"
