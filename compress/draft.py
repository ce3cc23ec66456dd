"""What one step hands to the next: files, specs and numbers, never live modules.

    Draft ── teacher, student: ModelFiles ── image: ImageSpec, text: TextSpec, fusion: FusionSpec

A draft goes to JSON with every path relative to the run's folder, so a run can be moved and resumed.
"""

import dataclasses
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from runtimes import RecipeError

Metric = float | int | str


@dataclass(frozen=True)
class DatasetSpec:
    """A data set by name (compress/data/<name>.py) and its fields."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TowerSpec:
    """One tower: the file in compress/models that builds it, its options, and its weights (safetensors).

    What was pruned: `without` names the blocks that were left out; how wide the layers still are, the weights say.
    """

    name: str
    options: Mapping[str, Any]
    weights: Path
    params: int
    without: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class ImageSpec(TowerSpec):
    """`size`: edge in pixels. `mean`, `std`: per RGB channel, for values in 0..1."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "area"
    crop: str = "none"


@dataclass(frozen=True)
class TextSpec(TowerSpec):
    """`max_length`: tokens L that ids and mask always have; `tokenizer`: a tokenizer.json that pads and cuts to L."""

    max_length: int
    tokenizer: Path


@dataclass(frozen=True)
class FusionSpec(TowerSpec):
    """`width`: of the tokens that go in. `image_tokens`: how many of them an image has. `answers`: what comes out."""

    width: int
    image_tokens: int
    answers: tuple[str, ...]


@dataclass(frozen=True)
class ModelFiles:
    """A dual encoder on disk, with a fusion on top if it answers questions.

    `dim`: width of the joint space. `score`: "softmax" or "sigmoid" of `logit_scale` (the factor, not its logarithm)
    times the cosine, plus `logit_bias`. `graphs`: tower ("image", "text", "fusion") -> variant ("fp32") -> ONNX file.
    `licences`: upstream name -> licence. `restricted`: the licence of weights that are for research only, and so is
    what is made of them; "" where there is none.
    """

    image: ImageSpec
    text: TextSpec
    dim: int
    logit_scale: float
    fusion: FusionSpec | None = None
    licences: Mapping[str, str] = field(default_factory=dict)
    graphs: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    score: str = "softmax"
    logit_bias: float = 0.0
    restricted: str = ""

    def beside(self, folder: Path) -> "ModelFiles":
        """The same model with its weights to be written into `folder`, and no graphs yet; the tokenizer stays put."""
        image = dataclasses.replace(self.image, weights=folder / self.image.weights.name)
        text = dataclasses.replace(self.text, weights=folder / self.text.weights.name)
        top = self.fusion and dataclasses.replace(self.fusion, weights=folder / self.fusion.weights.name)
        return dataclasses.replace(self, image=image, text=text, fusion=top, graphs={})


@dataclass(frozen=True)
class Pace:
    """A training of `steps` steps with `batch` images each took `seconds` a step on `device`, each of the
    `processes` on one of its own: their mean, since some steps do more than others."""

    steps: int
    batch: int
    seconds: float
    device: str
    processes: int = 1


@dataclass(frozen=True)
class Draft:
    """The state of a run between two steps.

    `out`: the run's folder. `folder`: where the running step may write. `bundles`: what was published, by who
    ("teacher", "student"); `programs`: the teacher's PyTorch programs. `evalset`: the published test split. `report`:
    the measurements on it, as JSON. `metrics`: flat, dotted by step ("teach.val_top1"). `seconds`: what each step cost.
    `pace`: how fast each training was, by its title ("teach: train"). `embedded`: how many of the store's rows the
    teacher made, and how many were there ("new", "kept"). `device`: where torch trains, see device.py.
    `hold_out`: share of the train images that the student never learns from (prune.hold_out). `train_size`: edge of the
    crops that it learns from, where they are smaller than its frames, else 0 (distill.train_size). `recipe`: its name.
    """

    out: Path
    folder: Path
    seed: int
    dataset: DatasetSpec
    teacher: ModelFiles | None = None
    student: ModelFiles | None = None
    store: Path | None = None
    bundles: Mapping[str, Path] = field(default_factory=dict)
    programs: tuple[Path, ...] = ()
    evalset: Path | None = None
    report: Path | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    pace: Mapping[str, Pace] = field(default_factory=dict)
    embedded: Mapping[str, int] = field(default_factory=dict)
    device: str = "cpu"
    hold_out: float = 0.0
    train_size: int = 0
    recipe: str = ""

    def with_metrics(self, step: str, **values: Metric) -> "Draft":
        """A copy with `values` added to the metrics under `step.`."""
        added = {f"{step}.{name}": value for name, value in values.items()}
        return dataclasses.replace(self, metrics={**self.metrics, **added})

    def with_pace(self, title: str, steps: int, batch: int, seconds: float) -> "Draft":
        """A copy that knows how fast a training on its device was; `seconds`: what `compress.train.train` returned."""
        from compress.processes import world  # here, for it knows devices, and they know drafts

        pace = Pace(steps, batch, seconds, self.device, world())
        return dataclasses.replace(self, pace={**self.pace, title: pace})

    def need(self, name: str, step: str) -> Any:
        """The field `name`. Raises RecipeError if no step before `step` has filled it."""
        value = getattr(self, name)
        if value is None:
            raise RecipeError(f"[{step}] needs a {name}, and no step before it made one; check the order of the recipe")
        return value

    def paths(self) -> list[Path]:
        """Every file and folder the draft points at."""
        found: list[Path] = []

        def note(path: Path) -> str:
            found.append(path)
            return ""

        _encode(self, note)
        return found

    def to_json(self) -> str:
        """JSON text; paths are relative to `out`, with forward slashes."""
        return json.dumps(_encode(self, self._relative), indent=1)  # in the order in which steps ran

    @staticmethod
    def from_json(text: str, out: Path) -> "Draft":
        """The draft that `to_json` wrote, with its paths under `out`."""
        draft: Draft = _decode(Draft, json.loads(text), lambda path: out / path)
        return draft

    def moved(self, old: Path, new: Path) -> "Draft":
        """A copy in which every path inside `old` lies inside `new`."""

        def move(path: str) -> Path:
            here = self.out / path
            return new / here.relative_to(old) if here.is_relative_to(old) else here

        draft: Draft = _decode(Draft, _encode(self, self._relative), move)
        return draft

    def _relative(self, path: Path) -> str:
        if not path.is_relative_to(self.out):
            raise ValueError(f"{path} lies outside the run's folder {self.out}; a step writes into draft.folder only")
        return path.relative_to(self.out).as_posix()


def _encode(value: Any, path_text: Callable[[Path], str]) -> Any:
    if isinstance(value, Path):
        return path_text(value)
    if dataclasses.is_dataclass(value):
        return {item.name: _encode(getattr(value, item.name), path_text) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _encode(item, path_text) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item, path_text) for item in value]
    return value


def _decode(hint: Any, value: Any, as_path: Callable[[str], Path]) -> Any:
    """The inverse of `_encode`, guided by the type hints of the dataclasses."""
    origin, args = get_origin(hint), get_args(hint)
    if value is None or hint is Any:
        return value
    if hint is Path:
        return as_path(value)
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return hint(**{key: _decode(hints[key], item, as_path) for key, item in value.items()})  # type: ignore[operator]
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        return _decode(inner[0], value, as_path) if len(inner) == 1 else value
    if origin is tuple:
        return tuple(_decode(args[0], item, as_path) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return {key: _decode(args[1], item, as_path) for key, item in value.items()}
    return value
