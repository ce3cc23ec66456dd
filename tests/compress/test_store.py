"""A store is opened only by those it was made for, and only whole."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from compress import file_hash
from compress.augment import Augment
from compress.draft import FusionSpec, ImageSpec, ModelFiles, TextSpec
from compress.store import Header, identity, open_store
from runtimes import RecipeError
from tests.stores import write_store

HEADER = Header("t" * 64, "d" * 64, 3, 32, Augment(shift=0.1), 14.5, ("a", "b"), 1)
ASKED = dataclasses.replace(HEADER, answers=("yes", "no", "teal"))


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"train": (2, 5, 4), "val": (3, 4), "texts": (2, 4), "answers": (2, 9, 3)}
    return {name: rng.random(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_store(tmp_path / "store", HEADER, arrays())
    return tmp_path / "store"


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A store with answers."""
    write_store(tmp_path / "asked", ASKED, arrays())
    return tmp_path / "asked"


def test_what_goes_in_comes_out(folder: Path) -> None:
    store = open_store(folder, HEADER.teacher, HEADER.data)
    assert store.header == HEADER
    assert (store.train.shape, store.train.dtype) == ((2, 5, 4), np.float32)
    assert isinstance(store.train, np.memmap)
    assert store.answers is None
    assert not (folder / "answers.npy").exists()


def test_half_the_bytes_are_read_as_float32(tmp_path: Path) -> None:
    write_store(tmp_path / "store", dataclasses.replace(ASKED, dtype="float16"), arrays())
    store = open_store(tmp_path / "store", ASKED.teacher, ASKED.data)
    assert (store.header.dtype, store.train.dtype, store.val.dtype) == ("float16", np.float16, np.float32)
    rows = np.array([3, 0])
    vectors, logits = store.vectors(1, rows), store.logits(0, rows)
    assert vectors.dtype == logits.dtype == np.float32
    assert np.array_equal(vectors, arrays()["train"].astype(np.float16)[1, rows])
    assert np.allclose(vectors, arrays()["train"][1, rows], rtol=5e-4)
    assert np.allclose(logits, arrays()["answers"][0, rows], rtol=5e-4)


def test_it_is_read_once_until_it_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = file_hash.sha256_of
    monkeypatch.setattr(file_hash, "sha256_of", lambda file: (read.append(file.name), whole(file))[1])
    other = shutil.copytree(folder, folder.with_name("other"))
    open_store(other, HEADER.teacher, HEADER.data)
    open_store(other, HEADER.teacher, HEADER.data)
    assert read == ["train.npy", "val.npy", "texts.npy"]
    status = (other / "val.npy").stat()
    os.utime(other / "val.npy", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    open_store(other, HEADER.teacher, HEADER.data)
    assert read[3:] == ["val.npy"]


def test_without_answers_there_are_no_logits(folder: Path) -> None:
    with pytest.raises(TypeError, match="the store holds no answers"):
        open_store(folder, HEADER.teacher, HEADER.data).logits(0, np.array([0]))


def test_answers_are_one_more_array(asked: Path) -> None:
    store = open_store(asked, ASKED.teacher, ASKED.data)
    assert store.header == ASKED
    assert store.answers is not None
    assert np.array_equal(store.answers, arrays()["answers"])
    assert isinstance(store.answers, np.memmap)


def test_answers_that_are_missing_or_damaged_are_named(asked: Path) -> None:
    file = asked / "answers.npy"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RecipeError, match=r"is damaged: answers\.npy is not what the header says; remove the folder"):
        open_store(asked, ASKED.teacher, ASKED.data)
    file.unlink()
    with pytest.raises(RecipeError, match=r"is damaged: answers\.npy cannot be read"):
        open_store(asked, ASKED.teacher, ASKED.data)


def test_answers_that_the_header_does_not_list_are_refused(folder: Path) -> None:
    np.save(folder / "answers.npy", arrays()["answers"])
    table = json.loads((folder / "header.json").read_text())
    (folder / "header.json").write_text(json.dumps({**table, "answers": ["yes", "no", "teal"]}))
    with pytest.raises(RecipeError, match=r"answers\.npy is not what the header says"):
        open_store(folder, HEADER.teacher, HEADER.data)


def test_a_teacher_is_all_of_its_weights(tmp_path: Path) -> None:
    image, text, fusion, tokenizer = (tmp_path / name for name in ("image", "text", "fusion", "tokenizer.json"))
    for path in (image, text, fusion):
        path.write_bytes(path.name.encode())
    files = ModelFiles(
        ImageSpec("net", {}, image, 5, 64, (0.5,) * 3, (0.5,) * 3),
        TextSpec("bert", {}, text, 7, 16, tokenizer),
        128,
        14.5,
        FusionSpec("sum", {}, fusion, 3, 32, 4, ("yes", "no")),
    )
    found = [identity(files), identity(dataclasses.replace(files, fusion=None))]
    for path in (image, text, fusion):
        path.write_bytes(b"other")
        found.append(identity(files))
    assert len(set(found)) == 5
    assert all(len(each) == 64 for each in found)


def test_another_teacher_or_other_data_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"from another teacher .*choose another --out, or remove the folder"):
        open_store(folder, "x" * 64, HEADER.data)
    with pytest.raises(RecipeError, match="made from another data"):
        open_store(folder, HEADER.teacher, "x" * 64)


@pytest.mark.parametrize("name", ["train.npy", "val.npy", "texts.npy"])
def test_a_changed_byte_is_refused(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(RecipeError, match=f"is damaged: {name} is not what the header says"):
        open_store(folder, HEADER.teacher, HEADER.data)


def test_a_cut_array_is_refused(folder: Path) -> None:
    (folder / "train.npy").write_bytes((folder / "train.npy").read_bytes()[:60])
    with pytest.raises(RecipeError, match=r"is damaged: train\.npy cannot be read"):
        open_store(folder, HEADER.teacher, HEADER.data)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot be read: Expecting value"),
        *((text, "is not a store header of format 4") for text in ("[]", "{}", json.dumps({"format": 1}))),
    ],
)
def test_a_foreign_header_is_refused(folder: Path, text: str, why: str) -> None:
    (folder / "header.json").write_text(text)
    said = rf"^the store {folder} is damaged: header\.json {why}.*; remove the folder and run again$"
    with pytest.raises(RecipeError, match=said):
        open_store(folder, HEADER.teacher, HEADER.data)


def test_a_header_of_another_format_is_refused(folder: Path) -> None:
    table = json.loads((folder / "header.json").read_text())
    (folder / "header.json").write_text(json.dumps({**table, "format": 1}))
    with pytest.raises(RecipeError, match=r"header\.json is not a store header of format 4; remove the folder"):
        open_store(folder, HEADER.teacher, HEADER.data)
