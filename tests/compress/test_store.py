"""A store is opened only by those it was made for, and only whole."""

import json
from pathlib import Path

import numpy as np
import pytest

from compress.augment import Augment
from compress.store import Header, open_store, write_store
from runtimes import RecipeError

HEADER = Header("t" * 64, "d" * 64, 3, 32, Augment(shift=0.1), 14.5, ("a", "b"), 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {"train": rng.random((2, 5, 4)), "val": rng.random((3, 4)), "texts": rng.random((2, 4))}
    write_store(tmp_path / "store", HEADER, {k: v.astype(np.float32) for k, v in arrays.items()})
    return tmp_path / "store"


def test_what_goes_in_comes_out(folder: Path) -> None:
    store = open_store(folder, HEADER.teacher, HEADER.data)
    assert store.header == HEADER
    assert (store.train.shape, store.train.dtype) == ((2, 5, 4), np.float32)
    assert isinstance(store.train, np.memmap)


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


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"format": 9})])
def test_a_foreign_header_is_refused(folder: Path, text: str) -> None:
    (folder / "header.json").write_text(text)
    with pytest.raises(RecipeError, match=r"is damaged: header.json"):
        open_store(folder, HEADER.teacher, HEADER.data)
