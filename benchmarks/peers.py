"""`python benchmarks/peers.py CHECKPOINT --bundle BUNDLE --images FOLDER`: our bundle beside others who serve the same
weights: optimum-intel on OpenVINO, and transformers in PyTorch.

CHECKPOINT is a folder as transformers saves a CLIP or a SigLIP, BUNDLE what `python -m compress.distill quantize` made
of it (its int8 and its fp32 graphs are measured, those it has). Writes peers.md, and peers.jsonl with every raw sample.
Exit code 2 for bad input, 130 when interrupted; then nothing is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:
    # From a clone nothing is installed; and this folder's own names are no top-level ones.
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent), *(each for each in sys.path if Path(each).resolve() != here)]

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from benchmarks.json_lines import write_lines
from benchmarks.mosaics import KINDS
from benchmarks.peer_cells import FULL, QUICK, Contender, measure
from benchmarks.peer_process import PeerProcess
from benchmarks.peer_tables import page
from benchmarks.progress import bar
from benchmarks.timing import machine
from runtimes import PupilError, RecipeError, Unavailable
from sdk.bundle import Bundle, open_bundle
from sdk.frames import read_frame
from sdk.slim import slim

ON = "ov:cpu"
KNOWN = ("clip", "siglip", "siglip2")
ADJECTIVES = (
    "red green blue wooden old new small large broken shiny striped wet frozen fresh empty full paper glass toy metal"
)
NOUNS = (
    "apple pear bottle chair zebra submarine carton banana bicycle lamp shoe kettle piano window ladder cabbage spoon "
    "guitar camera bridge horse pencil sofa tomato candle"
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; run: python benchmarks/peers.py --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    try:
        _run(_parse(arguments))
    except PupilError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def label_texts(count: int) -> list[str]:
    """`count` different texts, at most 500, which all differ in more than one word as long as they can."""
    adjectives, nouns = ADJECTIVES.split(), NOUNS.split()
    most = len(adjectives) * len(nouns)
    if count > most:
        raise RecipeError(f"--labels: there are texts for {most} labels, got {count}")
    pairs = (((at // len(nouns) + at % len(nouns)) % len(adjectives), at % len(nouns)) for at in range(count))
    return [f"a photo of a {adjectives[one]} {nouns[two]}" for one, two in pairs]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python benchmarks/peers.py", description="Our bundle beside others, on the same weights.")
    parser.add_argument("checkpoint", type=Path, help="a folder with a CLIP or SigLIP of transformers")
    parser.add_argument("--bundle", type=Path, required=True, help="what was made of it, such as out/quantize/student")
    parser.add_argument("--images", type=Path, required=True, help="a folder with photos, at any depth")
    parser.add_argument("--labels", type=_counts, default=(10, 81), help="how many; default: 10,81")
    parser.add_argument("--quick", action="store_true", help="fewer images and turns: a look, not a decision")
    parser.add_argument("--out", type=Path, help="the folder of the results; default: peers, beside the bundle")
    parser.add_argument(
        "--optimum-python",
        default=sys.executable,
        metavar="PATH",
        help="Python of another environment, in which optimum-intel is installed; default: this one",
    )
    return parser.parse_args(arguments)


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(each) for each in text.split(",")}))
    except ValueError:
        counts = (0,)
    if counts[0] < 2:
        raise argparse.ArgumentTypeError(f"wanted whole numbers from 2, such as 10,81, got {text!r}")
    return counts


def _run(asked: argparse.Namespace) -> None:
    counts: tuple[int, ...] = asked.labels
    texts = label_texts(max(counts))
    _check_checkpoint(asked.checkpoint)
    bundle = open_bundle(asked.bundle)
    if bundle.manifest.text is None:
        raise RecipeError(f"{bundle.path} has no text tower, so it can take no labels; give a bundle that has one")
    if shutil.which(asked.optimum_python) is None:
        raise RecipeError(f"--optimum-python: {asked.optimum_python} is no program that runs")
    photos = sorted(path for path in asked.images.rglob("*") if path.suffix.lower() in KINDS)
    if not photos:
        raise RecipeError(f"--images: {asked.images} holds no photo; give a folder with {', '.join(sorted(KINDS))}")
    effort = QUICK if asked.quick else FULL
    photos = photos[:: -(-len(photos) // effort.images)]
    with tempfile.TemporaryDirectory(prefix="pupil-peers-") as name:
        folder = Path(name)
        frames = [folder / f"{at}.npy" for at in range(len(photos))]
        for photo, frame in zip(photos, frames, strict=True):
            np.save(frame, read_frame(photo))
        contenders = _ours(bundle, folder)
        with bar(len(contenders) + 6) as tick:
            tick("optimum-intel: export", 1)
            others, why = _optimum(asked.checkpoint, folder / "optimum", asked.optimum_python)
            size = _size(asked.checkpoint)
            others.append(
                Contender("transformers, PyTorch", "transformers", asked.checkpoint, "fp32", size, sys.executable)
            )
            found = measure([*contenders, *others], frames, texts, counts, effort, tick)
    if why:
        found.skipped["optimum-intel"] = why
    if all(row["name"] in {each.name for each in contenders} for row in found.rows):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.skipped.items())
        raise Unavailable(f"nobody else runs these weights: {reasons}")
    facts = {"machine": machine(), "versions": found.versions, "turns": effort.turns, "quick": asked.quick}
    text = page(found, counts, machine(), asked.quick, effort.turns)
    out: Path = asked.out or asked.bundle.resolve().parent / "peers"
    figures = {"figures": found.rows, "agreement": found.agreement, "skipped": found.skipped}
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_lines(out / "peers.jsonl", [facts, figures, *found.samples])
        (out / "peers.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"--out {out} cannot be written: {error}") from error
    print(text, end="")


def _check_checkpoint(folder: Path) -> None:
    """Raises RecipeError for what transformers and optimum-intel would not both read."""
    config = folder / "config.json"
    if not config.is_file():
        raise RecipeError(f"there is no checkpoint in {folder}: it has no config.json, as transformers saves one")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise RecipeError(f"{config} cannot be read: {error}") from error
    if kind not in KNOWN:
        raise RecipeError(f"{folder} is a {kind!r}; wanted one of transformers': {', '.join(KNOWN)}")


def _ours(bundle: Bundle, folder: Path) -> list[Contender]:
    """Slim bundles of the int8 and of the fp32 graphs; the first is what others are held against."""
    made = []
    for stored, precision in (("int8", None), ("fp32", "fp32")):
        if any(graph.stored == stored and "ov" in graph.families for graph in bundle.variants("image").values()):
            slimmed = slim(bundle, ON, folder / stored, precision=stored)
            name = f"ours {stored}" + (" in f32" if precision else "")
            made.append(Contender(name, "ours", slimmed.path, precision, slimmed.size, sys.executable))
    if not made:
        raise Unavailable(f"{bundle.path} holds no int8 and no fp32 graphs for OpenVINO; give another bundle")
    return made


def _optimum(checkpoint: Path, out: Path, python: str) -> tuple[list[Contender], str]:
    """As it comes, and computed in f32; or none, and why."""
    try:
        with PeerProcess(python, "optimum-intel") as process:
            process.ask({"do": "export", "source": str(checkpoint.absolute()), "out": str(out)})
    except Unavailable as error:
        return (
            [],
            f"{error}; run: {python} -m pip install optimum-intel, or name a Python that has it: --optimum-python",
        )
    size = _size(out)
    kinds: tuple[tuple[str, str | None], ...] = (("optimum-intel", None), ("optimum-intel in f32", "fp32"))
    return [Contender(name, "optimum", out, precision, size, python) for name, precision in kinds], ""


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
