"""One folder per class, named like it; the class folders may lie under train/, val/ and test/. Photos may lie deeper.

The name of a folder is the label, underscores being spaces. Splits may be written in capitals. Files and folders that
begin with a dot are passed by.
"""

from collections.abc import Iterator
from pathlib import Path

from compress.layouts import SPLITS, SUFFIXES, Listing, Product, inside
from compress.layouts.grocery import is_grocery
from compress.layouts.table import lists
from runtimes import RecipeError

WANTS = "one folder of photos per class, and no .csv that lists them; the folders may lie under train/, val/ and test/"
# What others call splits. A folder of that name which holds folders is no class.
NEARLY = ("training", "valid", "validation", "testing")


def read(root: Path) -> Listing | None:
    """Every folder's photos. Raises RecipeError for splits of other names."""
    if not root.is_dir() or is_grocery(root) or lists(root):
        return None
    top = _folders(root)
    given = [folder for folder in top if folder.name.lower() in SPLITS and _folders(folder)]
    others = [folder for folder in top if folder not in given]
    if not given:
        others = [folder for folder in others if folder.name.lower() in NEARLY and _folders(folder)]
    if others:
        beside = f" beside {given[0].name!r}" if given else ""
        raise RecipeError(
            f"{root} has the folder {others[0].name!r}{beside}; splits are called {', '.join(SPLITS)}: rename it, or "
            "move it away"
        )
    split_of = {parent: parent.name.lower() for parent in given} or {root: ""}
    classes = {folder: split for parent, split in split_of.items() for folder in _folders(parent)}
    mistakes = [
        f"{path} lies in no class's folder, so it has no label; move it into one, or away"
        for parent in (root, *given)
        for path in sorted(parent.iterdir())
        if _is_photo(path)
    ]
    photos = []
    for folder, split in classes.items():
        for path in _photos(folder):
            try:
                photos.append((split, folder.name, inside(root, path.relative_to(root).as_posix(), folder.name)))
            except RecipeError as error:
                mistakes.append(str(error))
    if not photos:
        return None
    names = sorted({folder.name for folder in classes})
    labels = [name.replace("_", " ").strip() for name in names]
    return Listing(
        name="",
        root=root,
        products=tuple(Product(label, label) for label in labels),
        images=tuple(path for _, _, path in photos),
        labels=tuple(names.index(name) for _, name, _ in photos),
        splits=tuple(split for split, _, _ in photos),
        mistakes=tuple(mistakes),
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _photos(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if _is_photo(path) and not hidden:
            yield path


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
