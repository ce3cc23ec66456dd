"""The three ways photographs may lie on disk, and every list or path that is refused."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from compress.fetch import digest
from compress.layouts import Listing, inside, read_listing
from compress.layouts.grocery import SOURCE, noun
from runtimes import RecipeError, Unavailable
from tests.photos import folder_shop, grocery_root, grocery_shop, table_shop


def named(listing: Listing) -> list[tuple[str, str, str]]:
    rows = zip(listing.labels, listing.splits, strict=True)
    return [(listing.relative(at), listing.products[label].name, split) for at, (label, split) in enumerate(rows)]


def test_grocery_lists(tmp_path: Path) -> None:
    listing = read_listing(str(grocery_shop(tmp_path, {"train": 2, "val": 1, "test": 1})))
    assert listing.name == "grocery"
    assert listing.licence.startswith("MIT")
    apple, _, milk = listing.products
    assert (apple.name, apple.noun, apple.group, apple.group_noun) == (
        "royal gala",
        "royal gala apples",
        "apple",
        "apples",
    )
    assert (milk.name, milk.noun, milk.group) == ("oatly oat milk", "oatly oat milk", "oat milk")
    assert apple.text == "Royal Gala is crispy. The peel is thin and red."
    assert named(listing)[0] == ("train/Fruit/Royal-Gala/Royal-Gala_000.jpg", "royal gala", "train")
    assert Counter(listing.splits) == {"train": 6, "val": 3, "test": 3}


@pytest.mark.parametrize(
    ("name", "group", "packed", "said"),
    [
        ("conference", "pear", False, "conference pears"),
        ("mango", "mango", False, "mangoes"),
        ("avocado", "avocado", False, "avocados"),
        ("passion fruit", "passion fruit", False, "passion fruit"),
        ("brown cap mushroom", "mushroom", False, "brown cap mushrooms"),
        ("carrots", "carrots", False, "carrots"),
        ("tropicana mandarin morning", "juice", True, "tropicana mandarin morning juice"),
        ("arla lactose medium fat milk", "milk", True, "arla lactose-free medium fat milk"),
        ("god morgon orange red grapefruit juice", "juice", True, "god morgon orange and red grapefruit juice"),
        ("tropicana juice smooth", "juice", True, "tropicana smooth juice"),
    ],
)
def test_prompts_sound_english(name: str, group: str, packed: bool, said: str) -> None:
    assert noun(name, group, packed) == said


def damage(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("val.txt", ", 0, 0", ", 3, 0", r"val\.txt, line 1: wanted `path, fine id, coarse id` with a fine id below 3"),
        ("val.txt", ", 0, 0", ", -1, 0", r"line 1: wanted `path, fine id"),
        ("val.txt", ", 0, 0", "", r"line 1: wanted `path, fine id"),
        ("test.txt", "test/Fruit", "../Fruit", r"test\.txt, line 1: wanted a path below .*, without '\.\.'"),
        ("test.txt", "_001", "_000", r"_000\.jpg is listed twice; fetch the data set again"),
        ("classes.csv", "Class ID (int)", "Id", r"classes\.csv has no column 'Class ID \(int\)'"),
        ("classes.csv", "Royal-Gala,0", "Royal-Gala,1", r"does not number its classes 0, 1, 2"),
        ("classes.csv", "Royal-Gala_D", "Gala_D", r"classes\.csv: cannot read .*Gala_Description\.txt \(No such file"),
        ("classes.csv", "/texts/Fruit", "/../Fruit", r"classes\.csv: wanted a path below"),
    ],
)
def test_damaged_grocery_lists(tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    grocery_shop(tmp_path)
    damage(tmp_path, name, old, new)
    with pytest.raises(RecipeError, match=said):
        read_listing(str(tmp_path))


def test_a_missing_list_and_one_that_is_no_text(tmp_path: Path) -> None:
    grocery_shop(tmp_path)
    (tmp_path / "val.txt").unlink()
    with pytest.raises(RecipeError, match=r"val\.txt: cannot read .* \(No such file or directory\); put it there"):
        read_listing(str(tmp_path))
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=r"val\.txt: wanted UTF-8 text, got invalid start byte at byte 0"):
        read_listing(str(tmp_path))


def test_folders(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path / "shop", {"red_apple": 2, "Kiwi/green": 1, "empty": 0})
    for name in ("._000.jpg", "notes.txt", ".DS_Store"):
        (shop / "red_apple" / name).write_bytes(b"x")
    (shop / "red_apple" / "IMG_1.HEIC").write_bytes(b"x")
    listing = read_listing(str(shop))
    assert named(listing) == [
        ("Kiwi/green/000.jpg", "Kiwi", ""),
        ("red_apple/000.jpg", "red apple", ""),
        ("red_apple/001.jpg", "red apple", ""),
        ("red_apple/IMG_1.HEIC", "red apple", ""),
    ]
    assert [product.name for product in listing.products] == ["Kiwi", "empty", "red apple"]
    assert (listing.name, listing.licence) == ("", "")


def test_folders_with_splits(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path, {"train/a": 2, "train/b": 1, "test/a": 1})
    assert named(read_listing(str(shop))) == [
        ("test/a/000.jpg", "a", "test"),
        ("train/a/000.jpg", "a", "train"),
        ("train/a/001.jpg", "a", "train"),
        ("train/b/000.jpg", "b", "train"),
    ]
    folder_shop(tmp_path, {"valid/a": 1})
    with pytest.raises(RecipeError, match=r"has the folder 'valid' beside 'test'; splits are called train, val, test"):
        read_listing(str(shop))


def test_splits_in_capitals_and_by_other_names(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path / "capitals", {"Train/apple": 1, "TEST/pear": 1})
    assert named(read_listing(str(shop))) == [
        ("TEST/pear/000.jpg", "pear", "test"),
        ("Train/apple/000.jpg", "apple", "train"),
    ]
    folder_shop(tmp_path / "others", {"Training/apple": 1, "Validation/pear": 1})
    with pytest.raises(RecipeError, match="has the folder 'Training'; splits are called train, val, test: rename it"):
        read_listing(str(tmp_path / "others"))


def test_one_class_is_none(tmp_path: Path) -> None:
    folder_shop(tmp_path / "high" / "shop", {"apple": 2, "pear": 1})
    (tmp_path / "high" / "notes").mkdir()
    said = r"wanted photos of 2 classes or more, got all 3 under the label 'shop'; .* data\.root is a folder too high"
    with pytest.raises(RecipeError, match=said):
        read_listing(str(tmp_path / "high"))
    with pytest.raises(RecipeError, match="2 classes or more, got all 1 under the label 'x'"):
        read_listing(written(tmp_path, "image,label\na.jpg,x\n"))


def test_hidden_folders_are_passed_by(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path / ".hidden" / "shop", {"apple": 1, "apple/.thumbnails": 1, "pear/.a/b": 1, "pear/b": 1})
    assert [path for path, _, _ in named(read_listing(str(shop)))] == ["apple/000.jpg", "pear/b/000.jpg"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path, {"train": 1, "bus": 1})
    assert {label for _, label, _ in named(read_listing(str(shop)))} == {"train", "bus"}


def test_photos_beside_the_folders(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path, {"a": 1, "b": 1})
    (shop / "loose.jpg").write_bytes((shop / "a" / "000.jpg").read_bytes())
    (shop / "more.png").write_bytes(b"x")
    listing = read_listing(str(shop))
    assert len(listing.images) == 2
    said = "lies in no class's folder, so it has no label; move it into one, or away"
    assert listing.mistakes == (f"{shop / 'loose.jpg'} {said}", f"{shop / 'more.png'} {said}")


def test_labels_that_read_the_same(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="two labels that read 'fig', 'red cola', or one without a name; rename them"):
        read_listing(str(folder_shop(tmp_path, {"Red_Cola": 1, "red cola": 1, "fig": 1, "Fig": 1})))


def test_table(tmp_path: Path) -> None:
    columns = {"text": {"kiwi": "Sweet, and green."}, "group": {"kiwi": "fruit"}, "price": {}}
    file = table_shop(tmp_path, {"kiwi": 2, "cola": 1}, columns)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))  # as a spreadsheet writes it
    for root in (file, tmp_path):
        listing = read_listing(str(root))
        assert named(listing)[0] == ("photos/kiwi/000.jpg", "kiwi", "")
        assert [(each.name, each.text, each.group) for each in listing.products] == [
            ("cola", "", ""),
            ("kiwi", "Sweet, and green.", "fruit"),
        ]
        assert listing.name == ""


def written(folder: Path, text: str) -> str:
    (folder / "shop.csv").write_text(text, encoding="utf-8")
    return str(folder / "shop.csv")


def test_table_with_splits_and_paths_of_windows(tmp_path: Path) -> None:
    rows = "image,label,split\na\\1.jpg,x,train\na\\2.jpg,y,Test\n\n"
    assert named(read_listing(written(tmp_path, rows))) == [("a/1.jpg", "x", "train"), ("a/2.jpg", "y", "test")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_as_spreadsheets_write_them(tmp_path: Path, delimiter: str) -> None:
    rows = (("image", "price", "Label"), ("a.jpg", '"1,5;"', "x"), ("b.jfif", "2", "y"))
    file = written(tmp_path, "\n".join(delimiter.join(row) for row in rows))
    assert named(read_listing(file)) == [("a.jpg", "x", ""), ("b.jfif", "y", "")]
    assert read_listing(str(tmp_path)) == read_listing(file)


def test_a_csv_of_something_else_beside_the_folders(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path, {"a": 1, "b": 1})
    (shop / "b" / "x.jfif").write_bytes(b"x")
    (shop / "prices.csv").write_bytes("sort;pris\nåkerbär;3\n".encode("latin-1"))
    (shop / "odd.csv").write_text('"', encoding="utf-8")
    assert len(read_listing(str(shop)).images) == 3
    with pytest.raises(RecipeError, match=r"prices\.csv: wanted UTF-8 text"):
        read_listing(str(shop / "prices.csv"))
    (shop / "prices.csv").write_text("sort;pris\nfig;3\n", encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"prices\.csv has no column 'image', but sort;pris; name it in the first line"
    ):
        read_listing(str(shop / "prices.csv"))


def test_more_than_one_list(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("image,label\nx.jpg,y\n", encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"more than one list of photos: a\.csv, b\.csv; give one of them as data\.root"
    ):
        read_listing(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,name\na.jpg,x\n", r"shop\.csv has no column 'label', but image, name; name it in the first line"),
        ("", r"shop\.csv has no column 'image', but no columns; name it"),
        ("image,label\n", r"shop\.csv names no photos; add a row for each"),
        ("image,label\na.jpg,\n", r"line 2: wanted a label, got none"),
        ("image,label\n../a.jpg,x\nb.jpg,x", r"line 2: wanted a path below"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_listing(written(tmp_path, text))


def test_all_that_is_wrong_with_a_table(tmp_path: Path) -> None:
    """Each line of it is told, and left out."""
    rows = (
        "image,label,text,group,split",
        "a.jpg,x,one,g,train",
        "b.jpg,y,,,test",
        "c.jpg,x",
        "d.jpg,,,,",
        "e.jpg,x,,,valid",
        "./a.jpg,x,,,",
        '"f.jpg"b,x,,,',
        "g.jpg,x,two,,",
        "h.jpg,x,,h,",
        "../i.jpg,x,,,",
        "j.jpg,y,,,",
    )
    listing = read_listing(written(tmp_path, "\n".join(rows)))
    assert [path.name for path in listing.images] == ["a.jpg", "b.jpg", "g.jpg", "h.jpg", "j.jpg"]
    assert [(each.text, each.group) for each in listing.products] == [("one", "g"), ("", "")]
    told = [mistake.removeprefix(str(tmp_path / "shop.csv")).lstrip(",: ") for mistake in listing.mistakes]
    for mistake, said in zip(
        told,
        (
            "line 4: wanted 5 cells as in the first line, got 2; put cells that hold a comma or semicolon in quotes",
            "line 5: wanted a label, got none; fill it in, or leave the row out",
            "line 6: split must be train, val, test or empty, got 'valid'",
            "line 8: .* expected after .*; save it as CSV again",
            "lines 2 and 9 give the label 'x' another text each; a text is of the product",
            "lines 2 and 10 give the label 'x' another group each",
            "lines 2 and 7 name the same photo; leave one of them",
            "line 11: wanted a path below .*, without '..', got '../i.jpg'",
        ),
        strict=True,
    ):
        assert re.match(said, mistake), (said, mistake)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../a.jpg", "a/../../b.jpg", "C:\\a.jpg", "\\\\host\\a.jpg", "..\\a.jpg", "a\0b"]
)
def test_paths_that_climb_out(tmp_path: Path, path: str) -> None:
    with pytest.raises(RecipeError, match=r"line 7: wanted a path below .*, without '\.\.', got"):
        inside(tmp_path, path, "line 7")


def test_symlinks(tmp_path: Path) -> None:
    shop = folder_shop(tmp_path / "shop", {"a": 1})
    folder_shop(tmp_path / "elsewhere", {"b": 1})
    (shop / "here").mkdir()
    (shop / "here" / "copy.jpg").symlink_to(shop / "a" / "000.jpg")
    assert len(read_listing(str(shop)).images) == 2, "a link inside is the user's own business"
    (shop / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (mistake,) = read_listing(str(shop)).mistakes
    assert re.search(r"b: 'b/000\.jpg' is a symlink that leaves .*shop; put the file itself there", mistake)
    (shop / "round").symlink_to(shop / "round")
    with pytest.raises(RecipeError, match=r"row: 'round/x\.jpg' is no path of a file \(.*loop.*\); correct it"):
        inside(shop, "round/x.jpg", "row")


def test_what_is_no_shop(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"wants a folder or a \.csv file; add --set data\.root=DIR \(python -m compre"
    ):
        read_listing("")
    with pytest.raises(
        Unavailable, match=r"data\.root is .*nowhere, which does not exist; .*compress\.data grocery --fet"
    ):
        read_listing(str(tmp_path / "nowhere"))
    with pytest.raises(
        RecipeError, match=r"holds photos in no layout known here \(folders: one folder of.*; grocery: .*"
    ):
        read_listing(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(RecipeError, match="in no layout known here"):
        read_listing(str(tmp_path / "notes.txt"))


def test_what_reads_as_two_layouts(tmp_path: Path) -> None:
    grocery_shop(tmp_path)
    damage(tmp_path, "classes.csv", "Iconic Image Path (str)", "image")
    damage(tmp_path, "classes.csv", "Coarse Class ID (int)", "label")
    for number in range(3):
        damage(tmp_path, "classes.csv", "/texts/none.jpg", f"{number}.jpg")
    with pytest.raises(RecipeError, match="reads as more than one layout: grocery, table; leave the files of one"):
        read_listing(str(tmp_path))


def test_the_official_lists() -> None:
    listing = read_listing(str(grocery_root()))
    splits = Counter(listing.splits)
    assert (splits["train"], splits["val"]) == (2640, 296)
    assert splits["test"] in (1265, 2485), "the half that is here, or the whole"
    # The paper says 42 coarse classes; classes.csv numbers 43, from 0 to 42.
    assert (len(listing.products), len({product.group for product in listing.products})) == (81, 43)
    assert all(product.text for product in listing.products)
    for split, label, path in zip(listing.splits, listing.labels, listing.images, strict=True):
        # The folder of a photo is called as its class is.
        assert path.parent.name.replace("-", " ").lower() == listing.products[label].name
        assert path.relative_to(listing.root).parts[0] == split


def test_the_digests_are_those_of_the_real_files() -> None:
    """What a fetch holds the network's files against."""
    root = grocery_root()
    for pattern, known in SOURCE.digests.items():
        found = [
            path.relative_to(root).as_posix() for path in root.glob(f"**/{pattern}" if "*_" in pattern else pattern)
        ]
        if pattern in ("train/*.jpg", "val/*.jpg"):  # * stands for slashes too
            found = [path.relative_to(root).as_posix() for path in (root / pattern.split("/")[0]).rglob("*.jpg")]
        assert digest(root, found) == known, pattern
    assert len(SOURCE.commit) == 40
