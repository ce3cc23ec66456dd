"""A data set of the library `datasets`, saved on disk: its rows, its splits, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from compress.data import Corpus, open_dataset
from compress.data import hub as hub_data
from runtimes import RecipeError, Unavailable
from tests.photos import ROOT, folder_shop
from tests.streams import LABELS, jpeg

CLASSES = datasets.ClassLabel(names=list(LABELS))


def rows(first: int, count: int, label: Any = CLASSES, **columns: list[str]) -> datasets.Dataset:
    """Photos number `first` and on, labelled in turn by number."""
    numbers = range(first, first + count)
    table = {"image": [{"bytes": jpeg(at), "path": None} for at in numbers], "label": [at % 3 for at in numbers]}
    features = {"image": datasets.Image(), "label": label, **{name: datasets.Value("string") for name in columns}}
    if label == datasets.Value("string"):
        table["label"] = [LABELS[at % 3] for at in numbers]  # type: ignore[misc]
    return datasets.Dataset.from_dict({**table, **columns}, features=datasets.Features(features))


def saved(folder: Path, found: datasets.Dataset | datasets.DatasetDict) -> Path:
    found.save_to_disk(str(folder))
    return folder


def opened(root: object, **fields: object) -> Any:
    cache = Path(str(root)).parent / "cache"
    return open_dataset("hub", {"root": str(root), "cache": str(cache), **fields})


def corpus(root: object, **fields: object) -> Corpus:
    loaded: Corpus = opened(root, **fields).load()
    return loaded


def seen(loaded: Corpus) -> set[bytes]:
    return {path.read_bytes() for split in (loaded.train, loaded.val, loaded.test) for path in split.images}


@pytest.mark.parametrize("label", [CLASSES, datasets.Value("string"), datasets.Value("int64")])
def test_rows_become_photos_with_their_labels(tmp_path: Path, label: Any) -> None:
    root = saved(tmp_path / "my shop", rows(0, 36, label))
    (tmp_path / "names.txt").write_text("\n".join(LABELS), encoding="utf-8")
    dataset = opened(root, names=str(tmp_path / "names.txt"))
    dataset.check()
    dataset.verify(tmp_path / "out")
    loaded = dataset.load()
    assert loaded.name == "my-shop"
    assert [each.name for each in loaded.labels] == list(LABELS)
    assert seen(loaded) == {jpeg(at) for at in range(36)}
    for path, known in zip(loaded.train.images, loaded.train.label, strict=True):
        assert path.read_bytes() in {jpeg(at) for at in range(36) if at % 3 == known}


def test_splits_texts_and_groups_are_kept(tmp_path: Path) -> None:
    def part(first: int, count: int) -> datasets.Dataset:
        texts = [f"It is a {LABELS[at % 3]}." for at in range(first, first + count)]
        return rows(first, count, words=texts, kind=["fruit"] * count)

    whole = datasets.DatasetDict({"train": part(0, 18), "validation": part(18, 6), "test": part(24, 3)})
    loaded = corpus(saved(tmp_path / "shop", whole), text="words", group="kind")
    assert [len(split.images) for split in (loaded.train, loaded.val, loaded.test)] == [18, 6, 3]
    assert [(each.text, each.group) for each in loaded.labels] == [(f"It is a {name}.", "fruit") for name in LABELS]
    whole["more"] = part(27, 3)
    with pytest.raises(RecipeError, match="has the split 'more'; splits are called train, val, test, training"):
        opened(saved(tmp_path / "more", whole)).check()


def test_parts_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_data, "ROWS", 10)
    root, read, real = saved(tmp_path / "shop", rows(0, 36)), list[str](), hub_data.Hub.read

    def cut(self: Any, part: Any) -> Any:
        read.append(part.name)
        if len(read) == 3:
            raise KeyboardInterrupt
        return real(self, part)

    monkeypatch.setattr(hub_data.Hub, "read", cut)
    with pytest.raises(KeyboardInterrupt):
        corpus(root)
    assert len(seen(corpus(root))) == 36
    assert read == ["all[0:10]", "all[10:20]", "all[20:30]", "all[20:30]", "all[30:36]"]


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    plain = datasets.Features(
        {"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}, "label": CLASSES}
    )
    images: list[Any] = [{"bytes": jpeg(at), "path": None} for at in range(36)]
    images[3], images[4] = {"bytes": b"junk", "path": None}, None
    labels: list[Any] = [at % 3 for at in range(36)]
    labels[7], labels[8] = -1, None
    table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=plain)
    root = saved(tmp_path / "shop", table.cast_column("image", datasets.Image()))
    assert len(seen(corpus(root, max_corrupt=4))) == 32
    with pytest.raises(RecipeError) as refused:
        corpus(root, max_corrupt=1)
    told = str(refused.value)
    assert "4 samples cannot be used, and data.max_corrupt allows 1: " in told, "of what was unpacked before, too"
    assert "'all[3]': wanted a JPEG" in told
    assert "'all[4]': it holds no image, and None is no file here" in told
    row = {"image": {"bytes": None, "path": "https://x.org/y.jpg"}, "label": "a"}
    assert hub_data._sample("5", row, (), "").wrong == "it holds no image, and 'https://x.org/y.jpg' is no file here"


def test_what_is_refused_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = datasets.Dataset.from_dict({"picture": ["a"], "label": ["b"]})
    told = "has no image column, but picture, label; cast one to datasets.Image and save it"
    with pytest.raises(RecipeError, match=told):
        opened(saved(tmp_path / "words", words)).check()
    shop = saved(tmp_path / "shop", rows(0, 6).rename_column("label", "labels"))
    told = (
        r"has no label column 'label' \(did you mean 'labels'\?\), but image, labels; choose by --set data.label=NAME"
    )
    with pytest.raises(RecipeError, match=told):
        opened(shop).check()
    with pytest.raises(RecipeError, match=r"has no image column 'photo', but image; choose by --set data.image=NAME"):
        opened(shop, image="photo").check()
    two = rows(0, 6).add_column("image2", [{"bytes": jpeg(0), "path": None}] * 6)
    two = saved(tmp_path / "two", two.cast_column("image2", datasets.Image()))
    with pytest.raises(RecipeError, match=r"has the image columns image, image2; choose by --set data.image=NAME"):
        opened(two).check()
    with pytest.raises(RecipeError, match=r"the labels are numbers \('0'\), and a student is taught by words"):
        corpus(saved(tmp_path / "numbers", rows(0, 6, datasets.Value("int64"))))
    photos = folder_shop(tmp_path / "photos", {"a": 2, "b": 2})
    with pytest.raises(
        RecipeError, match=r"cannot read the data set .*; give a folder that save_to_disk wrote, or an id"
    ):
        opened(photos).check()
    for root in ("", "https://example.org/x", "a/b/c", "../x"):
        with pytest.raises(
            RecipeError, match="wanted a folder that save_to_disk wrote, or an id of the Hugging Face hub"
        ):
            opened(root).check()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = r"needs the package datasets, which is not installed; run: pip install 'edge-pupil\[data\]'"
    with pytest.raises(Unavailable, match=told):
        opened(shop).check()


def test_an_id_that_cannot_be_downloaded_is_told(tmp_path: Path) -> None:
    code = """
from compress.data import open_dataset
from runtimes import RecipeError
try:
    open_dataset("hub", {"root": "owner/shop"}).check()
except RecipeError as error:
    print(error)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("data.root: cannot read the data set owner/shop ("), done.stderr
    assert done.stdout.endswith("or an id that this machine can download\n")
