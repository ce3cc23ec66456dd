"""The bundle format, held: a bundle committed here byte for byte, and FORMAT.md against the code.

When one of these fails, bundles that users have stop working, or a reader written from FORMAT.md does. Do not write
tests/sdk/format1 anew: a change that needs it is a new format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path

import pytest

import runtimes
import sdk
from sdk import bundle as bundle_module
from sdk import card, charsmap, frames, manifest, onnx_scan, open_bundle, resize, specs, tokenizer_scan
from sdk import tasks as tasks_module
from sdk.golden import verify
from sdk.schema import parse
from sdk.writer import manifest_bytes, npy_bytes, npz_bytes, write_bundle
from tests.bundles import BANK, build_colour_bundle, colour_frame

FORMAT1 = Path(__file__).with_name("format1")
HASH = "69fc7c29a02b74386693b331e36df21fd7afac200a8cf5de4c9af80701f4703b"
PAGE = (Path(sdk.__file__).parent / "FORMAT.md").read_text(encoding="utf-8")
HERE = [str(target) for target in runtimes.targets()]

# Where FORMAT.md describes each dataclass of sdk/manifest.py.
SECTIONS = {
    manifest.Manifest: "The description",
    manifest.FileEntry: "Files",
    manifest.Licences: "Licences",
    manifest.Figure: "Figures",
    manifest.GraphSpec: "Graphs",
    manifest.PortSpec: "Ports",
    manifest.ImageSpec: "Frames",
    manifest.TextSpec: "Texts",
    manifest.FusionSpec: "Questions",
    manifest.ScoreSpec: "Scores",
    manifest.BankSpec: "Labels",
    manifest.LabelSpec: "Items",
}


def test_the_committed_bundle_is_untouched() -> None:
    assert hashlib.sha256((FORMAT1 / "bundle.json").read_bytes()).hexdigest() == HASH
    assert open_bundle(FORMAT1).hash == HASH


@pytest.mark.parametrize("on", HERE)
def test_a_bundle_of_format_1_works(on: str) -> None:
    with sdk.load(FORMAT1, on=on) as student:
        for label in BANK:
            answers = student.classify(colour_frame(label, size=30))
            assert (answers[0].label, answers[0].known) == (label, True)
        assert not student.classify(colour_frame("purple"))[0].known
        assert student.classify(colour_frame("yellow"), groups=True)[0].label == "warm"
        among = student.embed_images([colour_frame(label) for label in BANK])
        assert [hit.index for hit in student.search("a blue wall", among, k=1)] == [BANK.index("blue")]
        assert student.classify(colour_frame("purple"), labels=["red", "purple"])[0].label == "purple"
        assert [answer.label for answer in student.ask(colour_frame("blue"), ["is it red?", "what is it?"])] == [
            "no",
            "blue",
        ]
    assert all(verdict.passed for verdict in verify(open_bundle(FORMAT1)))


def test_writing_it_again_gives_the_same_bytes(tmp_path: Path) -> None:
    old = open_bundle(FORMAT1)
    new = write_bundle(tmp_path / "again", old.manifest, {name: old.file(name) for name in old.manifest.files})
    names = sorted(path.name for path in FORMAT1.iterdir())
    assert sorted(path.name for path in new.path.iterdir()) == names
    for name in names:
        assert (new.path / name).read_bytes() == (FORMAT1 / name).read_bytes(), name


def test_it_is_what_the_tests_build(tmp_path: Path) -> None:
    """By that it was made. Graphs and golden samples may differ where other versions of ONNX and zlib are installed."""
    built, kept = build_colour_bundle(tmp_path / "colours").manifest, open_bundle(FORMAT1).manifest
    assert dataclasses.replace(built, files={}) == dataclasses.replace(kept, files={})


def test_its_description_is_written_as_it_was() -> None:
    data = (FORMAT1 / "bundle.json").read_bytes()
    assert manifest_bytes(parse(manifest.Manifest, json.loads(data), "bundle.json")) == data


def test_its_label_vectors_are_written_as_they_were() -> None:
    assert npy_bytes(open_bundle(FORMAT1).label_vectors) == (FORMAT1 / "labels.npy").read_bytes()


def _entries(data: bytes) -> list[tuple[str, tuple[int, ...], int, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(e.filename, e.date_time, e.compress_type, archive.read(e)) for e in archive.infolist()]


def test_its_golden_samples_are_written_as_they_were() -> None:
    """Entry by entry, names, dates, bytes and order: how small they deflate is each zlib's own affair."""
    assert _entries(npz_bytes(open_bundle(FORMAT1).golden)) == _entries((FORMAT1 / "golden.npz").read_bytes())


# FORMAT.md


def section(title: str) -> str:
    """The text under one heading, up to the next of any level."""
    found = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, title
    return str(found[0])


def rows(title: str) -> dict[str, list[str]]:
    """The first table whose rows are fields: name -> the other cells."""
    table: dict[str, list[str]] = {}
    for line in section(title).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            table[cells[0].strip("`")] = cells[1:]
    return table


def test_every_dataclass_has_its_section() -> None:
    ours = {
        kind
        for kind in vars(manifest).values()
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind.__module__ == manifest.__name__
    }
    assert ours == set(SECTIONS)


@pytest.mark.parametrize("kind", SECTIONS, ids=lambda kind: kind.__name__)
def test_every_field_is_described_and_nothing_else(kind: type) -> None:
    table = rows(SECTIONS[kind])
    fields = {field.name: field for field in dataclasses.fields(kind)}
    assert table.keys() == fields.keys()
    for name, (type_, default, _) in table.items():
        field = fields[name]
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        assert bool(default) == (optional and name != "format"), f"the default of {name}"
        wanted = {"int": "int", "float": "float", "str": "str"}.get(str(field.type), "")
        assert type_.startswith(wanted), f"the type of {name}"


def test_every_golden_array_is_described() -> None:
    """Both ways: each array of a real bundle matches a row, and each row is met by an array."""
    patterns = re.findall(r"^\| `([\w/]+)` \|", section("Golden samples"), re.MULTILINE)
    fusion = [f"feed/fusion/{name}" for name in ("image", "text", "mask")]
    wanted = ["raw/I", "feed/image/image", "texts", "feed/text/ids", "feed/text/mask", *fusion]
    assert patterns == [*wanted, "out/TOWER/VARIANT/PORT"]
    as_regex = {p: p.replace("I", r"\d+") if p == "raw/I" else re.sub("[A-Z]+", r"[a-z0-9-]+", p) for p in patterns}
    names = list(open_bundle(FORMAT1).golden)
    for name in names:
        assert any(re.fullmatch(pattern, name) for pattern in as_regex.values()), name
    for pattern in as_regex.values():
        assert any(re.fullmatch(pattern, name) for name in names), pattern


@pytest.mark.parametrize(
    ("title", "fact"),
    [
        ("Rules for all of it", f"`{bundle_module._NAME.pattern}`"),
        ("Rules for all of it", f"`format` is {manifest.FORMAT}."),
        ("Rules for all of it", f"`bundle.json` {bundle_module._MAX_MANIFEST >> 20} MiB"),
        ("Rules for all of it", f"{bundle_module._MAX_FILES} files"),
        ("Rules for all of it", f"`golden.npz` {bundle_module._MAX_ARRAY >> 20} MiB unpacked"),
        *(("Rules for all of it", f"`{name}` {low} to {high}") for name, (low, high) in specs.LIMITS.items()),
        ("Rules for all of it", "2^28 elements"),
        ("Ports", "IR version <= 9"),
        *(("Ports", f"`{domain}`") for domain in sorted(onnx_scan.DOMAINS - {""})),
        *(("Ports", f"`{kind}`") for kind in sorted(onnx_scan._REFUSED_OPS)),
        *(("Frames", f"`{name}`") for name in (*resize.RESIZES, *resize.CROPS, *resize.CROPS_AFTER)),
        ("Rules for all of it", f"`card` {card.MAX_CARD >> 20} MiB"),
        ("Frames", f"{frames.MAX_BYTES >> 20} MiB"),
        ("Frames", f"at most {frames.MAX_PIXELS:,} pixels"),
        ("Frames", f"at least {frames.MIN_SIDE} x {frames.MIN_SIDE}"),
        *(("Texts", f"`{kind}`") for kinds in tokenizer_scan._TYPES.values() for kind in sorted(kinds)),
        *(
            ("Texts", f"`{regex}`")
            for regex in sorted(tokenizer_scan._REGEXES)
            if "of_text" not in regex and "oftext" not in regex
        ),
        ("Texts", f"at most {tokenizer_scan._MAX_DEPTH} deep and {tokenizer_scan._MAX_PARTS} parts"),
        ("Texts", f"at most {charsmap.MAX_BYTES >> 20} MiB"),
        ("Texts", f"replacement has at most {charsmap.MAX_REPLACEMENT} characters"),
        ("Labels", f"within {bundle_module.NORM_SLACK:g}"),
        *(("The description", f"`{name}`") for name in tasks_module.names()),
        *(("Graphs", f"`{name}`") for name in runtimes.names() if runtimes.opens(name) == ".onnx"),
    ],
)
def test_the_page_says_what_the_code_does(title: str, fact: str) -> None:
    assert fact in section(title)


def test_format_1_requires_nothing() -> None:
    """A name here means that readers of today cannot open the bundles of tomorrow: say so on the page first."""
    assert not manifest.REQUIRES
    assert "(format 1 defines none)" in PAGE


def test_defaults_of_check_onnx_are_those_of_the_page() -> None:
    assert onnx_scan.check_onnx.__kwdefaults__ is not None
    assert onnx_scan.check_onnx.__kwdefaults__["max_ir"] == 9
    assert onnx_scan.check_onnx.__kwdefaults__["max_elements"] == 2**28
