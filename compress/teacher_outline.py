"""What is known of the teacher of [teach] before any step runs: of a checkpoint, what its files say."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.adopt import check_deployable
from compress.checkpoints import Checkpoint, load
from compress.hub import locate

if TYPE_CHECKING:
    from compress.steps.teach import Teach

Tower = tuple[str, Mapping[str, Any]]  # its file in compress/models, and its options
Stamp = frozenset[tuple[str, int, int]]  # name, size and time of change of each file


@dataclass(frozen=True)
class TeacherOutline:
    """`size`: edge of its frames, in pixels; `dim`: width of the joint space.

    Of a checkpoint only: `tokenizer`, the text of its tokenizer.json; `params`, how many numbers both sides have;
    `projected`: whether its image side has a projection.
    """

    image: Tower
    text: Tower
    size: int
    dim: int
    tokenizer: str = ""
    params: int = 0
    projected: bool = True


def outline_of(teach: "Teach") -> TeacherOutline:
    """The teacher that `teach` trains or adopts. Raises RecipeError for a checkpoint that cannot be used."""
    if not teach.source:
        return TeacherOutline(
            (teach.image, teach.image_options), (teach.text, teach.text_options), teach.size, teach.dim
        )
    folder, family = locate(teach.source)
    files = (path for path in folder.iterdir() if path.is_file())
    stats = ((path.name, path.stat()) for path in files)
    return _read(folder, family, frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


@cache
def _read(folder: Path, family: Any, _: Stamp) -> TeacherOutline:
    """Read once however many steps ask; its weights may be gigabytes, and are not kept."""
    found: Checkpoint = load(folder, family)
    check_deployable(found)
    return TeacherOutline(
        image=(found.image.tower, found.image.options),
        text=(found.text.tower, found.text.options),
        size=found.pixels.size,
        dim=found.dim,
        tokenizer=found.tokenizer,
        params=sum(tensor.numel() for part in (found.image, found.text) for tensor in part.state.values()),
        projected="projection.weight" in found.image.state,
    )
