"""What streamed data sets are made of: samples, one after the other, in parts (shards, stretches of rows)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from compress.layouts import SPLITS
from runtimes import FeedError, RecipeError
from sdk.frames import read_frame
from sdk.image_header import read_header

MAX_LABEL, MAX_TEXT = 200, 10_000  # characters
GLANCE = 64  # pixels: a JPEG is decoded small, which reads all of it
# What others call splits.
SPLIT_NAMES = {**{each: each for each in SPLITS}, "training": "train", "valid": "val", "validation": "val"}


@dataclass(frozen=True)
class Sample:
    """An encoded image and what is said of it; `wrong`: why it cannot be used, "" if nothing is known against it."""

    key: str
    image: bytes = b""
    label: str = ""
    text: str = ""
    group: str = ""
    split: str = ""
    wrong: str = ""


@dataclass(frozen=True)
class Part:
    """`name`: its address. `stamp`: another one when its content is another. `mbytes`: MB (1e6 bytes), 0 if unknown."""

    name: str
    stamp: str = ""
    mbytes: float = 0.0


Read = Callable[[Part], Iterator[Sample]]


def named(label: str, names: tuple[str, ...]) -> str:
    """The class that a label means: a number stands for one of `names`, from 0.

    Raises RecipeError for a number where there are no names, LookupError for one that has none.
    """
    if not label.isdecimal():
        return label
    if not names:
        raise RecipeError(
            f"the labels are numbers ({label!r}), and a student is taught by words; give a text file with a name on "
            "each line, that of 0 first: --set data.names=FILE"
        )
    if len(label) > 9 or int(label) >= len(names):
        raise LookupError(f"its label is {label[:20]}, and data.names has {len(names)} names")
    return names[int(label)]


def look(sample: Sample) -> tuple[str, str]:
    """(why a sample cannot be used, or ""; the ending of its file). Decodes the image."""
    label, text = sample.label.strip(), sample.text + sample.group
    if sample.wrong:
        return sample.wrong, ""
    if not label:
        return "it has no label", ""
    if not label.isprintable() or len(label) > MAX_LABEL:
        return f"its label is not one line of at most {MAX_LABEL} characters", ""
    if "\0" in text or len(text) > MAX_TEXT:
        return f"its text is not at most {MAX_TEXT} characters", ""
    if sample.split not in ("", *SPLITS):
        return f"its split is {sample.split!r}, not train, val or test", ""
    try:
        read_frame(sample.image, least=GLANCE)
        return "", f".{read_header(sample.image).format.lower()}".replace("jpeg", "jpg")
    except FeedError as error:
        return str(error), ""
