"""A tiny bundle that really recognises frames by their colour, texts by the colour words in them, and answers questions
about colours.

Its weights are fitted in closed form (a text row is what the image tower answers to that colour), so tests have a
working dual encoder and a fusion tower, fp32 and int8, in milliseconds and without torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tokenizers import Tokenizer as Inner
from tokenizers import models, normalizers, pre_tokenizers

import runtimes
from sdk.bundle import MANIFEST, Bundle, open_bundle
from sdk.golden import golden_arrays, unit_rows
from sdk.manifest import (
    BankSpec,
    Figure,
    FusionSpec,
    ImageSpec,
    LabelSpec,
    Licences,
    Manifest,
    ScoreSpec,
    TextSpec,
)
from sdk.text import Tokenizer
from sdk.writer import npy_bytes, npz_bytes, write_bundle
from tests.towers import (
    ANSWERS,
    COLOURS,
    DIM,
    IMAGE_TOKENS,
    LENGTH,
    NAMED,
    SIZE,
    WIDTH,
    WORDS,
    build,
    graph_spec,
    text_rows,
)

BANK = ("red", "green", "blue", "yellow")
GROUPS = {"red": "warm", "green": "", "blue": "cold", "yellow": "warm"}
# A purple frame is below it, one of a colour of the bank above.
THRESHOLD = 0.9
CARD = "# Colours\n\nTells \u201cred\u201d, green, blue and yellow walls apart. It knows nothing else.\n"


def colour_frame(colour: str, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """A noisy frame of one colour: uint8 (size, size, 3) RGB."""
    noise = np.random.default_rng(seed).integers(-12, 13, (size, size, 3))
    return np.clip(np.array(NAMED[colour]) + noise, 0, 255).astype(np.uint8)


AREA = ImageSpec(SIZE, "area", "none", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def build_colour_bundle(out: Path, asks: bool = True, spec: ImageSpec = AREA, **changes: object) -> Bundle:
    """Write the bundle to `out`, with a fusion tower if it `asks`; `changes` replace fields of its manifest."""
    towers = ("image", "text", "fusion") if asks else ("image", "text")
    graphs = {(t, v): build(t, v, asks) for t in towers for v in ("fp32", "int8")}
    files: dict[str, Path | bytes] = {f"{t}.{v}.onnx": m.SerializeToString() for (t, v), m in graphs.items()}
    files |= {"tokenizer.json": tokenizer_json().encode(), "card.md": CARD.encode()}
    frames = [colour_frame(c, SIZE if i < 6 else 40, seed=i) for i, c in enumerate([*COLOURS, "red", "blue"])]
    texts = ["red", "a green wall", "is it blue?", "what is it?", "white", "a black wall", "purple", "a strange wall"]
    tokenizer = Tokenizer(tokenizer_json(), LENGTH, "tokenizer.json")
    arrays = golden_arrays(frames, np.full((SIZE, SIZE, 3), 255, np.uint8), texts, spec, tokenizer)
    for (tower, variant), model in graphs.items():
        if (tower, variant) == ("fusion", "fp32"):  # each frame with two of the texts
            pairs = [(i, (i + step) % len(texts)) for step in range(2) for i in range(len(texts))]
            arrays["feed/fusion/image"] = arrays["out/image/fp32/tokens"][[i for i, _ in pairs]]
            arrays["feed/fusion/text"] = arrays["out/text/fp32/tokens"][[j for _, j in pairs]]
            arrays["feed/fusion/mask"] = arrays["feed/text/mask"][[j for _, j in pairs]]
        outputs = _answers(model, tower, arrays)
        arrays |= {f"out/{tower}/{variant}/{port}": array for port, array in outputs.items()}
    files["golden.npz"] = npz_bytes(arrays)
    bank = text_rows()[[WORDS.index(name) for name in BANK]]
    files["labels.npy"] = npy_bytes(unit_rows(bank))
    manifest = Manifest(
        name="colours",
        space="colours-1",
        dim=DIM,
        licences=Licences("Apache-2.0", {}),
        tasks=("classify", "embed_images", "embed_texts", "search", *(("ask",) if asks else ())),
        graphs={t: {v: graph_spec(t, v, asks) for v in ("fp32", "int8")} for t in towers},
        image=spec,
        text=TextSpec(LENGTH, "tokenizer.json", ("a {} wall",)),
        fusion=FusionSpec(WIDTH, IMAGE_TOKENS, ANSWERS) if asks else None,
        score=ScoreSpec("softmax", 20.0, 0.0),
        golden="golden.npz",
        tolerance={t: {"fp32": {"f32": 1e-5, "*": 2e-2}, "int8": {"*": 2e-2}} for t in towers},
        labels=BankSpec("fp32", "labels.npy", tuple(_item(name) for name in BANK)),
        unknown_threshold=THRESHOLD,
        card="card.md",
        quality={"zero_shot.top1": {"student": Figure(1.0, 0.9, 1.0, 8)}},
        provenance={"made_by": "tests"},
    )
    return write_bundle(out, replace(manifest, **changes), files)  # type: ignore[arg-type]


def _item(name: str) -> LabelSpec:
    return LabelSpec(name, (name,), 0, GROUPS[name], f"Paint for walls. It is {name}.")


def damage(
    bundle: Path,
    out: Path,
    files: Mapping[str, bytes] | None = None,
    change: Callable[[dict[str, Any]], object] | None = None,
) -> Path:
    """Copy a bundle to `out` with other `files` and a changed bundle.json.

    Hashes are mended, so that only the check under test can object.
    """
    shutil.copytree(bundle, out)
    table = json.loads((out / MANIFEST).read_bytes())
    for name, data in (files or {}).items():
        (out / name).write_bytes(data)
        table["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if change is not None:
        change(table)
    (out / MANIFEST).write_text(json.dumps(table), encoding="utf-8")
    return out


def without_text(table: dict[str, Any]) -> None:
    """A change for `damage`: no text side, as --no-text leaves it."""
    table.update(text=None, fusion=None)
    table["graphs"] = {"image": table["graphs"]["image"]}


def golden_with(bundle: Path, **arrays: np.ndarray | None) -> bytes:
    """golden.npz of a bundle with other arrays, `__` for `/` in a name; None leaves one out."""
    changed: dict[str, np.ndarray | None] = {**open_bundle(bundle).golden}
    changed |= {name.replace("__", "/"): array for name, array in arrays.items()}
    return npz_bytes({name: array for name, array in changed.items() if array is not None})


def tokenizer_json() -> str:
    """A word-level tokenizer that lower-cases, pads and cuts to LENGTH."""
    inner = Inner(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.enable_truncation(LENGTH)
    inner.enable_padding(length=LENGTH, pad_id=0, pad_token="[PAD]")
    return str(inner.to_str())


def _answers(model: onnx.ModelProto, tower: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = f"feed/{tower}/"
    feeds = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        with runtimes.open_session("ort:cpu", path, batch=None) as session:
            return session.run(feeds)
