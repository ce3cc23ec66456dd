"""How photographs and their labels may lie on disk: a file each, found by listing this folder.

`layouts/<name>.py` holds `WANTS`, what it looks like in one phrase, and `read(root) -> Listing | None`: None says that
`root` is not laid out like that. A layout reads lists and names, never photos, and `inside` refuses paths that climb
out. One that can be fetched holds a `SOURCE` as well (compress/fetch.py).
"""

import importlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from compress.named import names_in
from runtimes import RecipeError, Unavailable

SPLITS = ("train", "val", "test")
# What counts as a photo. Those that the SDK cannot decode (HEIC, TIFF) count too, so that they are told, not passed by.
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".heic", ".heif", ".avif", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Product:
    """A class. `name`: its label. `noun`: what a prompt says of it ("royal gala apples"); `text`: the product text;
    `group`: the coarse class, `group_noun`: what a prompt says of that. All but the names may be "".
    """

    name: str
    noun: str
    text: str = ""
    group: str = ""
    group_noun: str = ""


@dataclass(frozen=True)
class Listing:
    """N photos of K products, as a layout found them.

    `images`: N absolute paths, all different, below `root`, a folder. `labels`: position in `products` of each.
    `splits`: "train", "val" or "test" of each, or "" where the layout does not say. `name`, `licence`: of the data, ""
    where the layout does not know them. `mistakes`: what is wrong with lines of lists and places of files, one line
    each; what they are of is left out.
    """

    name: str
    root: Path
    products: tuple[Product, ...]
    images: tuple[Path, ...]
    labels: tuple[int, ...]
    splits: tuple[str, ...]
    licence: str = ""
    mistakes: tuple[str, ...] = ()

    def relative(self, at: int) -> str:
        """The path of photo `at` below the root, with forward slashes."""
        return self.images[at].relative_to(self.root).as_posix()


def read_listing(root: str) -> Listing:
    """What lies at `root`, a folder or a .csv file, in the one layout that knows it.

    Raises RecipeError if `root` is empty, if no layout knows it or more than one does, if it has photos of fewer
    than two classes, and for lists that cannot be read at all; Unavailable if it does not exist.
    """
    fetch = "python -m compress.data grocery --fetch DIR downloads the Grocery Store photos"
    if not root:
        raise RecipeError(f"the data set photos wants a folder or a .csv file; add --set data.root=DIR ({fetch})")
    where = Path(root).expanduser().resolve()
    if not where.exists():
        raise Unavailable(
            f"data.root is {where}, which does not exist; give another with --set data.root=DIR ({fetch})"
        )
    modules = {name: importlib.import_module(f"compress.layouts.{name}") for name in names_in("compress.layouts")}
    found: dict[str, Listing] = {name: read for name, module in modules.items() if (read := module.read(where))}
    if len(found) == 1:
        listing = next(iter(found.values()))
        _check_labels(listing)
        return listing
    if found:
        raise RecipeError(f"{where} reads as more than one layout: {', '.join(found)}; leave the files of one of them")
    known = "; ".join(f"{name}: {module.WANTS}" for name, module in modules.items())
    raise RecipeError(f"{where} holds photos in no layout known here ({known}); arrange it like one of them")


def _check_labels(listing: Listing) -> None:
    """Two classes or more, each called otherwise: text towers do not see capitals, and some file systems neither."""
    if len(found := {listing.products[label].name for label in listing.labels}) < 2:
        if listing.mistakes:
            raise RecipeError(listing.mistakes[0])
        raise RecipeError(
            f"{listing.root}: wanted photos of 2 classes or more, got all {len(listing.labels)} under the label "
            f"{', '.join(map(repr, found))}; if that is no class, data.root is a folder too high: give the one that "
            "holds the classes, or add photos of another class"
        )
    read = Counter(product.name.lower() for product in listing.products)
    if wrong := [name for name, count in read.items() if count > 1 or not name]:
        raise RecipeError(
            f"{listing.root} has two labels that read {', '.join(map(repr, wrong))}, or one without a name; rename them"
        )


def inside(folder: Path, text: str, where: str) -> Path:
    """The path `text` below `folder` (absolute, without symlinks), which need not exist.

    Raises RecipeError, beginning with `where`, for an empty or absolute path, one with "..", and one that a symlink
    leads out of `folder`.
    """
    path = PurePosixPath(text.replace("\\", "/"))
    windows = PureWindowsPath(text)
    if not path.parts or path.is_absolute() or windows.drive or windows.root or ".." in path.parts or "\0" in text:
        raise RecipeError(f"{where}: wanted a path below {folder}, without '..', got {text!r}; correct the list")
    whole = folder / path
    try:
        left = not whole.resolve().is_relative_to(folder)
    except (OSError, RuntimeError) as error:  # a name too long, a loop of symlinks
        raise RecipeError(f"{where}: {text!r} is no path of a file ({error}); correct it") from error
    if left:
        raise RecipeError(f"{where}: {text!r} is a symlink that leaves {folder}; put the file itself there")
    return whole


def read_text(path: Path, where: str) -> str:
    """The UTF-8 text of a file, without a byte order mark.

    Raises RecipeError, beginning with `where`, if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{where}: wanted UTF-8 text, got {error.reason} at byte {error.start}; save it as UTF-8"
        ) from None
    except OSError as error:
        raise RecipeError(f"{where}: cannot read {path} ({error.strerror}); put it there") from error
