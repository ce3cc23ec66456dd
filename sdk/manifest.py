"""bundle.json as dataclasses. sdk/FORMAT.md describes each field; a test holds both together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1
TOWERS = ("image", "text", "fusion")
# What a bundle may require of its reader. A later format-1 feature that an old reader must not ignore adds a name here.
REQUIRES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle: its sha256 (hex) and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class PortSpec:
    """A graph's input or output: numpy dtype name, shape with None where free (the batch)."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One tower in one variant.

    `stored` is the precision of the weights in the file. `families` names the runtimes that may open it, fastest
    first as the maker measured. `macs` are multiply-accumulates for a batch of one, `params` the stored weights.
    """

    file: str
    stored: str
    families: tuple[str, ...]
    opset: int
    inputs: Mapping[str, PortSpec]
    outputs: Mapping[str, PortSpec]
    macs: int
    params: int
    external: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageSpec:
    """Frames to feeds: uint8 (N, size, size, 3) RGB. mean and std (0..1 units) are inside the graph already."""

    size: int
    resize: str
    crop: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class TextSpec:
    """Texts to feeds: ids and mask int64 (N, length). `templates` turn a bare label into prompts, `{}` is the label."""

    length: int
    tokenizer: str
    templates: tuple[str, ...]


@dataclass(frozen=True)
class FusionSpec:
    """Questions about a frame: T = `image_tokens` tokens of an image, each of F = `width` values, as are a text's L.

    `answers` is the closed set that `logits` (N, A) chooses from, in that order.
    """

    width: int
    image_tokens: int
    answers: tuple[str, ...]


@dataclass(frozen=True)
class ScoreSpec:
    """Cosines to scores: softmax or sigmoid of logit_scale * cosine + logit_bias."""

    kind: str
    logit_scale: float
    logit_bias: float


@dataclass(frozen=True)
class LabelSpec:
    """A label of the bank: its prompts, and how many of their tokens the tokenizer did not know. `group` is the coarse
    class it belongs to, `text` what the maker has to say about it; "" where there is none."""

    label: str
    prompts: tuple[str, ...]
    unknown: int
    group: str = ""
    text: str = ""


@dataclass(frozen=True)
class BankSpec:
    """The label bank: row i of the float32 array in `vectors` (.npy) is item i, made by the text variant `made_by`."""

    made_by: str
    vectors: str
    items: tuple[LabelSpec, ...]


@dataclass(frozen=True)
class Licences:
    """SPDX name of this package's own work, and of what it was made from."""

    package: str
    upstream: Mapping[str, str]


@dataclass(frozen=True)
class Figure:
    """A measured number with its 95 % interval and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Manifest:
    """All of bundle.json."""

    name: str
    space: str
    dim: int
    licences: Licences
    tasks: tuple[str, ...]
    graphs: Mapping[str, Mapping[str, GraphSpec]]
    image: ImageSpec
    score: ScoreSpec
    golden: str
    # tower -> variant -> compute ("*" for any other) -> the largest error against golden that passes.
    tolerance: Mapping[str, Mapping[str, Mapping[str, float]]]
    text: TextSpec | None = None
    fusion: FusionSpec | None = None
    labels: BankSpec | None = None
    # cosine of the best label below which a frame is none of them
    unknown_threshold: float | None = None
    card: str | None = None
    # metric -> who ("teacher", "student") -> figure
    quality: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    format: int = FORMAT
    requires: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
