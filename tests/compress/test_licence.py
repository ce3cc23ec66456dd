"""What a checkpoint's card allows: read, asked for, or accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.licence import licence_of, package_licence
from runtimes import RecipeError

APPLE = "---\nlicense: other\nlicense_name: apple-amlr\n---\n"


def card(folder: Path, text: str) -> Path:
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("text", "given", "found"),
    [
        ("---\nlicense: apache-2.0\ntags: [clip]\n---\n# x\n", "", "apache-2.0"),
        ("---\nlicense: mit\n---\n", "mit", "mit"),
        ("no front matter", "MIT", "MIT"),
        ("---\nlicense: other\n---\n", "a letter from Ada", "a letter from Ada"),
    ],
)
def test_the_card_or_the_user_says_it(text: str, given: str, found: str, tmp_path: Path) -> None:
    assert licence_of(card(tmp_path, text), given, accepted=False) == (found, False)


def test_the_configuration_may_say_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"license": "bsd-3-clause"}', encoding="utf-8")
    assert licence_of(tmp_path, "", accepted=False) == ("bsd-3-clause", False)


@pytest.mark.parametrize(
    "licence",
    [
        *("apple-amlr", "apple-ascl", "apple-sample-code-license", "Apple ASCL"),
        *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "CC BY-NC 4.0", "cc_by_nc_4.0"),
        *("x-research-only", "non commercial use", "noncommercial"),
    ],
)
def test_research_only_must_be_accepted(licence: str, tmp_path: Path) -> None:
    folder = card(tmp_path, APPLE.replace("apple-amlr", licence))
    with pytest.raises(RecipeError, match=rf"for research only \({licence}\), .* if that is what you want, add --acc"):
        licence_of(folder, "", accepted=False)
    assert licence_of(folder, "", accepted=True) == (licence, True)


def test_of_several_licences_the_strictest_holds(tmp_path: Path) -> None:
    folder = card(tmp_path, "---\nlicense: [mit, cc-by-nc-4.0]\n---\n")
    assert licence_of(folder, "", accepted=True) == ("mit, cc-by-nc-4.0", True)


@pytest.mark.parametrize(
    "licence", ["mit", "apache-2.0", "cc-by-4.0", "openrail", "bsd-3-clause", "cc0-1.0", "pineapple-1.0", "ncsa"]
)
def test_others_need_not(licence: str, tmp_path: Path) -> None:
    assert licence_of(card(tmp_path, f"---\nlicense: {licence}\n---\n"), "", accepted=False) == (licence, False)


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("# a model", "", r"neither README.md nor config.json of .* names a licence; .*--set teach.licence=\.\.\."),
        ("---\nlicense: other\n---\n", "", "names a licence; find out"),
        (APPLE, "mit", "teach.licence is 'mit', and the card of .* says 'apple-amlr'; leave out teach.licence"),
        ("---\nlicense: [\n---\n", "", r"the front matter of .*README.md cannot be read \("),
    ],
)
def test_what_is_not_known_is_asked(text: str, given: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        licence_of(card(tmp_path, text), given, accepted=True)


def test_what_is_made_of_restricted_weights_is_restricted() -> None:
    assert package_licence("") == "Apache-2.0"
    assert package_licence("apple-amlr") == "apple-amlr (research only, not for commercial use)"
