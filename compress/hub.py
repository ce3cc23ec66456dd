"""Where a checkpoint lies: a folder, or a repository of the hub, of which what is needed is downloaded."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from compress.checkpoints import family_of
from runtimes import RecipeError

# Configuration, tokenizer, card. Everything else in a repository is weights, often in several formats.
SMALL = ("*.json", "*.txt", "*.model", "README.md")


def locate(source: str) -> tuple[Path, Any]:
    """The folder of the checkpoint `source`, a path or a hub id ("openai/clip-vit-base-patch32"), and its family's
    module, see compress/checkpoints.

    Raises RecipeError for a folder that is not there, an id that the hub does not give, what is no dual encoder, and a
    checkpoint without weights.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        family = family_of(folder)
    else:
        folder = _download(source, SMALL)
        family = family_of(folder)
        for pattern in family.WEIGHTS:  # the first that there is: the others are the same weights in other formats
            if any(folder.glob(pattern)) or any(_download(source, (pattern,)).glob(pattern)):
                break
    if not any(any(folder.glob(pattern)) for pattern in family.WEIGHTS):
        raise RecipeError(f"{folder} has no weights; wanted {' or '.join(family.WEIGHTS)}: copy them there too")
    return folder, family


def content(source: str) -> str:
    """sha256 (hex) over names and contents of the files of a checkpoint. Raises as `locate` does."""
    folder, family = locate(source)
    digest = hashlib.sha256()
    for path in sorted(path for pattern in (*SMALL, *family.WEIGHTS) for path in folder.glob(pattern)):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


@cache
def _download(source: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=list(patterns), ignore_patterns=["*/*"]))
    except Exception as error:  # the hub's own, the network's, and those of the id's syntax
        why = " ".join(str(error).split())[:200]
        raise RecipeError(
            f"{source!r} is no folder here, and the hub did not give it ({type(error).__name__}: {why}); "
            "check the id and the network, or download it elsewhere and give the folder"
        ) from error
