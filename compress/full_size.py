"""`python -m compress.full_size [MODEL] [--photos FOLDER] [--seconds S] [--samples N] [--out FILE]`: what int8 makes of
the image tower of a full-size checkpoint.

MODEL is a name of open_clip's; the one by default has the shape of openai/clip-vit-base-patch32. Its weights are drawn:
time, size and parity do not ask what a network has learnt, and accuracy is measured where one was trained. The
checkpoint is saved as its library does it, then goes the way of the recipe `quantize`: read, compared with itself,
exported, quantized. The graphs are timed in turn by the benchmarks' clock. Exit codes: 0 done, 2 a mistake.
"""

import argparse
import contextlib
import functools
import json
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import runtimes
from benchmarks.mosaics import KINDS
from benchmarks.stats import median_interval
from benchmarks.tables import Row, grid, interval, megabytes
from benchmarks.timing import in_turn, machine, versions
from compress.candidates import Feeds, choose
from compress.command import Parser, complain, exit_code
from compress.data import open_dataset
from compress.engines import cpu_targets
from compress.measure import PACKAGES
from compress.named import did_you_mean
from compress.step_tables import PROOF, proof_rows
from compress.steps.quantize import Quantize
from runtimes import RecipeError
from sdk.golden import unit_rows

MODEL = "ViT-B-32-quickgelu"
COMPARED = 50  # photos
# The engine's own arithmetic is bf16 on CPUs that have it.
PRECISIONS: Mapping[str, str | None] = {"f32": "f32", "default": None}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return exit_code(lambda: _command(_parser().parse_args(arguments)), "run the same command again")


def save_checkpoint(name: str, folder: Path) -> None:
    """An open_clip with weights drawn from one seed, so that activations keep their size from layer to layer; a network
    that says the same of everything would prove nothing. Raises RecipeError for a name that open_clip does not have."""
    import open_clip
    import torch
    from open_clip.push_to_hf_hub import save_config_for_hf
    from safetensors.torch import save_file

    if name not in open_clip.list_models():
        raise RecipeError(
            f"open_clip has no model {name!r}{did_you_mean(name, open_clip.list_models())}; they are listed by "
            "open_clip.list_models()"
        )
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # it warns of what is meant: no weights
    try:
        model = open_clip.create_model(name, load_weights=False)
    finally:
        logging.disable(logging.NOTSET)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape) * (parameter.numel() / len(parameter)) ** -0.5)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    save_config_for_hf(model, folder / "open_clip_config.json", open_clip.get_model_config(name))


def measure(checkpoint: Path, photos: Sequence[Path], folder: Path, asked: Quantize, seconds: float) -> dict[str, Any]:
    """Read the checkpoint, make its image tower's graphs in `folder` with the settings of `asked`, and time them for
    `seconds` per engine. `photos` are to calibrate with, and the last COMPARED of them to compare on."""
    from compress.adopt import adopt
    from compress.checkpoints import family_of, load
    from compress.export import export_tower, towers
    from compress.parity import Towers, prove
    from compress.prepared import read_prepared

    read = load(checkpoint, family_of(checkpoint))
    files = adopt(read, folder / "teacher", {}, "")
    proof = prove(Towers(files), read, files.score, photos[-COMPARED:], [])
    spec, graph = files.image, folder / "image.fp32.onnx"
    export_tower(towers(files)["image"], graph)
    feeds: Feeds = [{"image": read_prepared(path, spec.size, spec.resize, spec.crop)[None]} for path in photos]
    known, fresh = feeds[:-COMPARED][: asked.samples], feeds[-COMPARED:]
    chosen, tried = choose("image", graph, (known, fresh), asked.quantizers, asked.distance, folder)
    return {
        "params": spec.params,
        "quantizer": tried["image.chosen"],
        "bytes": {"f32": graph.stat().st_size, "int8": chosen.stat().st_size},
        "steps": {f"{PROOF}{name}": value for name, value in proof.items()},
        "speed": [_speed(str(target), graph, chosen, fresh, seconds) for target in cpu_targets()],
        "machine": machine(),
        "versions": versions(*PACKAGES, "open_clip_torch"),
    }


def _speed(target: str, graph: Path, int8: Path, feeds: Feeds, seconds: float) -> dict[str, Any]:
    """Milliseconds of a frame, ratios of turns, and cosines of int8 vectors to those of f32."""
    with contextlib.ExitStack() as stack:
        sessions = {
            name: stack.enter_context(runtimes.open_session(target, graph, precision=precision))
            for name, precision in PRECISIONS.items()
        }
        sessions["int8"] = stack.enter_context(runtimes.open_session(target, int8))
        calls = {name: functools.partial(session.run, feeds[0]) for name, session in sessions.items()}
        times = in_turn(calls, min_seconds=seconds)
        wanted, got = (
            unit_rows(np.concatenate([sessions[name].run(feed)["embedding"] for feed in feeds]))
            for name in ("f32", "int8")
        )
        near = np.einsum("nd,nd->n", wanted.astype(np.float64), got.astype(np.float64))
        return {
            "target": target,
            "compute": {name: session.compute for name, session in sessions.items()},
            "ms": {name: vars(median_interval(spent)) for name, spent in times.items()},
            "ratio": {name: vars(median_interval(times[name] / times["int8"])) for name in PRECISIONS},
            "cosine_min": float(near.min()),
            "cosine_mean": float(near.mean()),
        }


def speed_rows(found: Mapping[str, Any]) -> list[Row]:
    """A row per engine, header first."""
    rows: list[Row] = [
        ("target", *PRECISIONS, "int8", "against f32", "against default", "cosine to f32: least, mean"),
    ]
    for row in found["speed"]:
        spent = (f"{row['ms'][name]['value']:.3g} ms ({row['compute'][name]})" for name in (*PRECISIONS, "int8"))
        ratios = (f"{interval(row['ratio'][name], 2)}x" for name in PRECISIONS)
        rows.append((row["target"], *spent, *ratios, f"{row['cosine_min']:.4f}, {row['cosine_mean']:.4f}"))
    return rows


def _command(asked: argparse.Namespace) -> None:
    settings = Quantize(samples=asked.samples)
    settings.check()
    photos = _drawn(_photos(asked.photos), asked.samples + COMPARED)
    if len(photos) <= COMPARED:
        raise RecipeError(f"--photos: {asked.photos} holds {len(photos)} photos; give a folder with over {COMPARED}")
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(asked.model, Path(folder) / "checkpoint")
        found = measure(Path(folder) / "checkpoint", photos, Path(folder), settings, asked.seconds)
    if asked.out is not None:
        asked.out.write_text(json.dumps({"model": asked.model, **found}, indent=1) + "\n", encoding="utf-8")
    size, facts = found["bytes"], found["machine"]
    print(f"{asked.model}, random weights: {found['params'] / 1e6:.1f} M parameters in the image tower,")
    print(f"{megabytes(size['f32'])} in f32, {megabytes(size['int8'])} in int8 ({found['quantizer']})\n")
    print(grid(speed_rows(found)))
    print(grid(proof_rows(found["steps"])))
    print(f"{facts['cpu']}, {facts['cores']} cores, {', '.join(facts['features'])}")
    print(", ".join(f"{name} {number}" for name, number in found["versions"].items()))


def _photos(folder: Path | None) -> Sequence[Path]:
    if folder is None:
        complain("no --photos: easy-VQA's images, which are small, do for time, size and parity")
        return open_dataset("easy_vqa", {}).load().train.images
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS)


def _drawn(photos: Sequence[Path], count: int) -> Sequence[Path]:
    """`count` of them at most, drawn from one seed: by name the first are often of one kind."""
    return [photos[at] for at in np.random.default_rng(0).permutation(len(photos))[:count]]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m compress.full_size", description="What int8 makes of a full-size image tower.")
    parser.add_argument("model", nargs="?", default=MODEL, help=f"a name of open_clip's; default: {MODEL}")
    parser.add_argument("--photos", type=Path, help="a folder with photos, at any depth; default: easy-VQA's images")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each engine's clock runs")
    parser.add_argument("--samples", type=int, default=Quantize().samples, help="photos to calibrate with")
    parser.add_argument("--out", type=Path, metavar="FILE", help="every figure as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
