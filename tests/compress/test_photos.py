"""The data set of photographs: splits, captions, fingerprints, and what a run does with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from compress.command import complain
from compress.data import Corpus, Label, open_dataset
from compress.draft import DatasetSpec
from compress.label_checks import check_labels
from compress.layouts import Product
from compress.models.text import minilm
from compress.named import names_in
from compress.photo_checks import LIST
from compress.photo_scan import SCAN
from compress.product_captions import captions, sentences
from compress.recipe import Recipe
from compress.steps import check_steps, run_steps
from runtimes import RecipeError, Unavailable
from tests.photos import folder_shop, grocery_root, grocery_shop, picture, save, table_shop


def corpus(root: Path, **fields: object) -> Corpus:
    return open_dataset("photos", {"root": str(root), **fields}).load()


def test_it_is_found_by_name_and_the_command_beside_it_is_not() -> None:
    names = names_in("compress.data")
    assert "photos" in names
    assert "__main__" not in names
    with pytest.raises(
        RecipeError, match="there is no data set named '__main__'; data sets: easy_vqa, hub, photos, shards"
    ):
        open_dataset("__main__", {})


def test_the_corpus_of_a_grocery_shop(tmp_path: Path) -> None:
    loaded = corpus(grocery_shop(tmp_path))
    assert loaded.name == "grocery"
    assert loaded.labels[0] == Label(
        "royal gala",
        (
            "a photo of royal gala apples",
            "royal gala apples",
            "a photo of royal gala apples in a shop",
            "a close-up photo of royal gala apples",
        ),
        "Royal Gala is crispy. The peel is thin and red.",
        "apple",
    )
    assert [wordings[0] for wordings in loaded.captions] == [
        "a photo of royal gala apples",
        "a photo of granny smith apples",
        "a photo of oatly oat milk",
        "a photo of apples",
        "a photo of oat milk",
        "Royal Gala is crispy. The peel is thin and red.",
        "Granny Smith is a green apple. Fits well in pies.",
        "A natural oat drink. Fits well in pies.",
    ]
    assert loaded.captions[5][1:] == ("Royal Gala is crispy.", "The peel is thin and red.")
    assert loaded.captions[6][1:] == ("Granny Smith is a green apple.",), "two products fit well in pies"
    assert [len(split.images) for split in (loaded.train, loaded.val, loaded.test)] == [18, 6, 9]
    first, last = loaded.train.matches[0].tolist(), loaded.test.matches[-1].tolist()
    assert first == [1, 0, 0, 1, 0, 1, 0, 0]
    assert last == [0, 0, 1, 0, 1, 0, 0, 1]
    assert loaded.train.matches.dtype == np.int8
    assert loaded.train.label.dtype == np.int64
    assert np.array_equal(loaded.val.possible.argmax(1), loaded.val.label)
    assert (loaded.val.possible.sum(1) == 1).all()
    assert loaded.answers == ()
    assert loaded.train.questions == ()
    assert loaded.licence.startswith("MIT (Grocery Store")
    assert {"royal", "gala", "shop", "crispy", "natural", "apple", "apples", "pies"} <= set(loaded.words)


def test_one_caption_stands_for_what_two_products_share() -> None:
    products = [
        Product("cola", "cola", "Fizzy. Serve it cold.", "drink", "drinks"),
        Product("diet cola", "diet cola", "Fizzy. Serve it cold.", "drink", "drinks"),
        Product("water", "water", "", "water", "water"),
    ]
    made = captions(products)
    assert [(wordings[0], sorted(true)) for wordings, true in made.items()] == [
        ("a photo of cola", [0]),
        ("a photo of diet cola", [1]),
        ("a photo of water", [2]),
        ("a photo of drinks", [0, 1]),
        ("Fizzy. Serve it cold.", [0, 1]),
    ]
    wordings = [wording for caption in made for wording in caption]
    assert len(set(wordings)) == len(wordings)


def test_a_label_that_is_called_like_a_group_is_true_of_the_group() -> None:
    products = [
        Product("bread", "bread", "", "Bread", "Bread"),
        Product("rye bread", "rye bread", "", "Bread", "Bread"),
        Product("milk", "milk", "", "drink", "drinks"),
    ]
    assert [(wordings[0], sorted(true)) for wordings, true in captions(products).items()] == [
        ("a photo of bread", [0, 1]),
        ("a photo of rye bread", [1]),
        ("a photo of milk", [2]),
        ("a photo of drinks", [2]),
    ]


def test_sentences() -> None:
    text = "Has 1.5 percent fat. Good, e.g. with filling. Sweet! Årets bästa? 100 % Swedish."
    assert sentences(text) == ["Has 1.5 percent fat.", "Good, e.g. with filling.", "Årets bästa?", "100 % Swedish."]


def test_only_the_split_that_is_missing_is_drawn(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path, {"train/a": 12, "train/b": 1, "test/a": 4})
    loaded = corpus(shop, val_share=0.33)
    assert [len(split.images) for split in (loaded.train, loaded.val, loaded.test)] == [9, 4, 4]
    assert all(path.is_relative_to(shop / "test") for path in loaded.test.images)


def test_photos_that_show_the_same_are_not_parted(tmp_path: Path) -> None:
    """Bursts in folders without splits: a run goes on, and val has its photos."""
    shop = folder_shop(tmp_path / "shop", {"a": 20, "b": 20})
    bursts = [[shop / label / f"{number:03d}.jpg" for number in range(3)] for label in "ab"]
    bursts += [[shop / label / f"{number:03d}.jpg" for number in range(3, 6)] for label in "ab"]
    for seed, burst in enumerate(bursts):
        for quality, path in zip((95, 60, 30), burst, strict=True):
            save(path, picture(900 + seed), quality)
    for seed in range(5):
        driven(shop, tmp_path / "out", split_seed=seed)
        loaded = corpus(shop, split_seed=seed)
        splits = [set(split.images) for split in (loaded.train, loaded.val, loaded.test)]
        assert [len(split) for split in splits] == [28, 6, 6]
        for burst in bursts:
            assert any(split.issuperset(burst) for split in splits)


def test_photos_that_a_table_puts_in_train_stay_there(tmp_path: Path) -> None:
    """The rest is drawn, but for what shows the same as they do."""
    table_shop(tmp_path, {"a": 20, "b": 20})
    lines = (tmp_path / "shop.csv").read_text(encoding="utf-8").splitlines()
    fixed = {f"photos/{label}/{number:03d}.jpg" for label in "ab" for number in range(6)}
    table = ["image,label,split", *(f"{line},{'train' * (line.split(',')[0] in fixed)}" for line in lines[1:])]
    (tmp_path / "shop.csv").write_text("\n".join(table), encoding="utf-8")
    same = "photos/a/010.jpg"
    shutil.copy(tmp_path / "photos/a/000.jpg", tmp_path / same)
    for seed in range(5):
        driven(tmp_path, tmp_path / "out", split_seed=seed)
        loaded = corpus(tmp_path, split_seed=seed)
        assert {path.relative_to(tmp_path).as_posix() for path in loaded.train.images} >= {*fixed, same}
        assert len(loaded.val.images) == len(loaded.test.images) == 4


def test_a_class_of_five_is_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Though two of them are drawn; and what one of the photos for validation is worth is said before training."""
    driven(folder_shop(tmp_path / "shop", dict.fromkeys("abcd", 5)), tmp_path / "out")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("there are 4 photos for validation: each is worth 25.0 points of accuracy, so neither a")
    with pytest.raises(
        RecipeError,
        match=r"fewer than 5 photos to train on: 1 \('e' has 4, of which 2 would be left\); all are listed",
    ):
        driven(folder_shop(tmp_path / "shop4", {**dict.fromkeys("abcd", 5), "e": 4}), tmp_path / "out")


def test_nothing_is_said_of_many_photos_for_validation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    driven(folder_shop(tmp_path / "shop", {"train/a": 5, "train/b": 5, "val/a": 200, "test/a": 1}), tmp_path / "out")
    assert not caplog.records


def test_a_table_without_splits(tmp_path: Path) -> None:
    file = table_shop(tmp_path, {"cola": 12, "kiwi": 12}, {"text": {"kiwi": "Green and sweet."}})
    loaded = corpus(file, licence="CC0")
    assert (loaded.name, loaded.licence) == ("shop", "CC0")
    assert [label.name for label in loaded.labels] == ["cola", "kiwi"]
    assert loaded.captions[-1] == ("Green and sweet.",)
    assert corpus(file).licence == "not stated"


def test_the_fingerprint_follows_content_and_fields_not_the_place(tmp_path: Path) -> None:
    shop = grocery_shop(tmp_path / "here")
    first = open_dataset("photos", {"root": str(shop)})
    before = first.fingerprint()
    assert len(before) == 64
    shutil.copytree(shop, tmp_path / "there")
    there = {"root": str(tmp_path / "there")}
    assert open_dataset("photos", there).fingerprint() == before
    assert open_dataset("photos", {**there, "accept": ["few"]}).fingerprint() == before
    assert open_dataset("photos", {**there, "accept": ["unreadable"]}).fingerprint() != before
    assert open_dataset("photos", {**there, "licence": "CC0"}).fingerprint() != before
    photo = tmp_path / "there" / "train/Fruit/Royal-Gala/Royal-Gala_000.jpg"
    times = (photo.stat().st_atime_ns, photo.stat().st_mtime_ns + 1_000_000)
    os.utime(photo, ns=times)
    assert open_dataset("photos", there).fingerprint() == before
    save(photo, picture(1000))
    changed = open_dataset("photos", there).fingerprint()
    photo.unlink()
    assert len({before, changed, open_dataset("photos", there).fingerprint()}) == 3


def test_the_fingerprint_does_not_follow_what_the_folder_is_called(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path / "shop.v1", {"a": 12, "b": 12})
    table = table_shop(tmp_path / "table", {"a": 12, "b": 12})
    for old, new, names in (
        (shop, tmp_path / "other.v2", ("shop.v1", "other.v2")),
        (table, table.with_name("other.csv"), ("shop", "other")),
    ):
        before = corpus(old)
        old.rename(new)
        after = corpus(new)
        assert after.fingerprint == before.fingerprint
        assert (before.name, after.name) == names


def test_the_seed_draws_another_split(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path, {"a": 12, "b": 12})
    prints = {open_dataset("photos", {"root": str(shop), "split_seed": seed}).fingerprint() for seed in range(3)}
    assert len(prints) == 3


def test_bad_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"no kind 'duplicate' \(did you mean 'duplicates'\?\); kinds: lists, unreadable, few"
    ):
        open_dataset("photos", {"accept": ["duplicate"]})
    for shares in ({"val_share": 0.0}, {"test_share": -0.1}, {"val_share": 0.5, "test_share": 0.4}):
        with pytest.raises(
            RecipeError, match=r"val_share and data\.test_share must be above 0 and at most 0\.8 togeth"
        ):
            open_dataset("photos", shares)
    with pytest.raises(RecipeError, match=r"--set data\.root=DIR \(python -m compress\.data grocery --fetch DIR"):
        open_dataset("photos", {}).check()
    with pytest.raises(Unavailable, match="which does not exist"):
        open_dataset("photos", {"root": str(tmp_path / "no")}).check()


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"a": 2, "b": 1}, "has 3 photos of 2 classes, and 0 of them for val, which needs 4; add photos"),
        ({"a": 5, "b": 5}, "has 10 photos of 2 classes, and 2 of them for val, which needs 4; add photos"),
        ({"train/a": 5, "val/b": 3, "test/a": 1}, "and 3 of them for val, which needs 4"),
        ({"val/a": 9, "test/b": 9}, "and 0 of them for train, which needs 1"),
    ],
)
def test_too_few_photos_for_three_splits(tmp_path: Path, counts: dict[str, int], said: str) -> None:
    """Golden samples are chosen from val: from one photo none can be."""
    shop = folder_shop(tmp_path, counts)
    with pytest.raises(RecipeError, match=said):
        open_dataset("photos", {"root": str(shop)}).check()


def test_one_burst_is_for_one_split(tmp_path: Path) -> None:
    """Only a look at the photos tells that there is nothing to draw."""
    shop = folder_shop(tmp_path / "shop", {"a": 20, "b": 20})
    for path in shop.rglob("*.jpg"):
        save(path, picture(ord(path.parent.name)))
    open_dataset("photos", {"root": str(shop)}).check()
    with pytest.raises(RecipeError, match=r"0 of them for val, .* \(a class of 3 that differ gives each split one\)"):
        driven(shop, tmp_path / "out")


def test_unreadable_photos_are_left_out_where_accepted(tmp_path: Path) -> None:
    shop = grocery_shop(tmp_path / "shop")
    photo = shop / "train/Fruit/Royal-Gala/Royal-Gala_000.jpg"
    photo.write_bytes(b"no picture")
    loaded = corpus(shop, accept=["unreadable"])
    assert len(loaded.train.images) == 17
    assert photo not in loaded.train.images


def driven(root: Path, out: Path, **fields: object) -> None:
    """A run without steps: only the data is looked at."""
    recipe = Recipe("shop", "", 0, 1, DatasetSpec("photos", {"root": str(root), **fields}), ())
    check_steps(recipe)
    run_steps(recipe, out)


def test_a_run_looks_at_every_photo_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop, out = grocery_shop(tmp_path / "shop"), tmp_path / "out"
    driven(shop, out)
    assert not (out / LIST).exists()
    assert (out / SCAN).is_file()
    (shop / "val/Fruit/Royal-Gala/Royal-Gala_001.jpg").write_bytes(b"no picture")
    with pytest.raises(
        RecipeError, match=r"^the photos cannot be trained on as they are: unreadable files: 1 \(val"
    ) as refused:
        driven(shop, out)
    capsys.readouterr()
    complain(refused.value)
    assert capsys.readouterr().err.count("\n") == 1
    assert "Royal-Gala_001.jpg: wanted" in (out / LIST).read_text(encoding="utf-8")
    driven(shop, out, accept=["unreadable"])


def test_wrong_lines_stand_in_the_list_with_the_rest(tmp_path: Path) -> None:
    """Where they are accepted they are left out."""
    file = table_shop(tmp_path, {"cola": 12, "kiwi": 12})
    with file.open("a", encoding="utf-8") as table:
        table.write("photos/cola/000.jpg,cola\nphotos/kiwi/000.jpg,\nphotos/none.jpg,fig\n")
    with pytest.raises(
        RecipeError,
        match=r"as they are: mistakes in lists and folders: 2 \(.*csv.*\); unreadable files: 1 \(.*; labels wi",
    ):
        driven(tmp_path, tmp_path / "out")
    listed = (tmp_path / "out" / LIST).read_text(encoding="utf-8")
    assert listed.startswith("# mistakes in lists and folders: 2\n")
    assert "lines 2 and 26 name the same photo" in listed
    assert "line 27: wanted a label, got none" in listed
    driven(tmp_path, tmp_path / "out", accept=["lists", "unreadable", "few", "empty"])


def test_the_real_photos() -> None:
    loaded = corpus(grocery_root())
    assert (len(loaded.labels), len(loaded.captions)) == (81, 81 + 17 + 81)
    assert [len(split.images) for split in (loaded.train, loaded.val)] == [2640, 296]
    told = {label.name: label for label in loaded.labels}
    assert told["anjou"].prompts[0] == "a photo of anjou pears"
    assert told["solid potato"].group == "potato"
    # A photo is matched by its label, its text, and its group where that says more: three at most.
    assert set(loaded.train.matches.sum(1).tolist()) == {2, 3}
    wordings = [wording for caption in loaded.captions for wording in caption]
    assert len(set(wordings)) == len(wordings) == 649
    check_labels(loaded.labels, minilm.tokenizer({}, 64))
    spoken = {word for text in wordings for word in text.lower().replace("-", " ").split() if word.isalpha()}
    assert spoken <= set(loaded.words)
