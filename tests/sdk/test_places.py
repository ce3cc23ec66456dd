"""Bare names of bundles, and that a name cannot climb out of where bundles are kept."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

import sdk
from runtimes import BundleError
from sdk import places
from sdk.places import find
from tests.bundles import BANK


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with an installed package, a home and a working folder, all without bundles."""
    for name in ("site/sdk", "home", "work"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(places, "__file__", str(tmp_path / "site" / "sdk" / "places.py"))
    monkeypatch.setenv("PUPIL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def put(bundle: Path, folder: Path, name: str = "shop") -> Path:
    return Path(shutil.copytree(bundle, folder / "bundles" / name))


def test_loads_by_name(colours: Path, here: Path) -> None:
    put(colours, here / "home")
    with sdk.load("shop") as student:
        assert student.labels.list() == list(BANK)
        assert student.bundle.path == here / "home" / "bundles" / "shop"


def test_places_come_in_order(colours: Path, here: Path) -> None:
    found = [put(colours, here / "home")]
    assert find("shop") == found[-1]
    put(colours, here / "work")
    assert find("shop") == Path("bundles/shop")
    in_site = put(colours, here / "site")
    assert find("shop") == Path("bundles/shop"), "an installed package has no bundles beside it"
    (here / "site" / "pyproject.toml").touch()
    assert find("shop") == in_site


def test_a_path_that_exists_is_itself(colours: Path, here: Path) -> None:
    put(colours, here / "home")
    (here / "work" / "shop").mkdir()
    assert find("shop") == "shop"
    with pytest.raises(BundleError, match="shop is not a bundle"):
        sdk.load("shop")


@pytest.mark.parametrize(
    "name", ["../shop", "..", ".", "./shop", "shop/", "a/shop", "a\\shop", "C:shop", "-x", ".x", ""]
)
def test_what_is_no_bare_name_is_a_path(colours: Path, here: Path, name: str) -> None:
    put(colours, here / "home")
    put(colours, here / "home", "..shop")
    assert find(name) == name
    with pytest.raises(BundleError, match="is not a bundle"):
        sdk.load(name)


def test_a_path_is_never_looked_up(colours: Path, here: Path) -> None:
    put(colours, here / "home")
    assert find(Path("shop")) == Path("shop")


def test_a_name_that_is_nowhere(colours: Path, here: Path) -> None:
    put(colours, here / "home", "grocery")
    put(colours, here / "work", "b.2")
    put(colours, here / "work", ".half-written")
    (here / "work" / "bundles" / "empty").mkdir()
    (here / "site" / "pyproject.toml").touch()
    looked = f"{here}/site/bundles, {here}/work/bundles, {here}/home/bundles"
    message = f"there is no path and no bundle called 'grocry'; looked in {looked}, where these are: b.2, grocery; give"
    with pytest.raises(BundleError, match=re.escape(message)):
        sdk.load("grocry")
    with pytest.raises(BundleError, match="no bundle called 'empty'"):
        find("empty")


def test_no_bundle_anywhere(here: Path) -> None:
    for name in ("grocery", "x" * 300):
        with pytest.raises(
            BundleError, match=rf"called '{name}'; .* where these are: none; give one of them, or the pat"
        ):
            find(name)


@pytest.mark.parametrize(
    ("platform", "variables", "wanted"),
    [
        ("linux", {}, "home/.cache"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "home/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l"),
        ("win32", {}, "home/AppData/Local"),
    ],
)
def test_the_cache_folder_of_each_platform(
    here: Path, monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], wanted: str
) -> None:
    for name in ("PUPIL_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(here / "home"), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert list(places.places())[-1] == here / wanted / "pupil" / "bundles"


def test_a_user_without_a_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUPIL_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert list(places.places()) == [Path("bundles")]
