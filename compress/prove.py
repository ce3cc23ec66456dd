"""`python -m compress.prove CHECKPOINT BUNDLE --photos FOLDER [--on TARGET]`: is a bundle what it was made of?

The bundle's float32 graphs run through the SDK on an engine, the checkpoint by its own library: the same token ids,
vectors and probabilities must come out (compress/parity.py). Exit codes: 0 they do, 2 they do not, or a mistake in what
was asked for (one line says which).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import sdk
from benchmarks.mosaics import KINDS
from compress.command import Parser, exit_code
from compress.step_tables import PROOF, proof_rows
from compress.tables import grid
from runtimes import RecipeError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return exit_code(lambda: _command(_parser().parse_args(arguments)), "run the same command again")


def _command(asked: argparse.Namespace) -> None:
    from compress.checkpoints import load
    from compress.hub import locate
    from compress.parity import Deployed, prove, spread

    photos = sorted(path for path in asked.photos.rglob("*") if path.suffix.lower() in KINDS)
    if not photos:
        raise RecipeError(f"--photos: {asked.photos} holds no photo; give a folder with {', '.join(sorted(KINDS))}")
    folder, family = locate(asked.checkpoint)
    checkpoint = load(folder, family)
    with sdk.load(asked.bundle, on=asked.on, precision="fp32") as student:
        manifest = student.bundle.manifest
        texts = [prompt for item in manifest.labels.items for prompt in item.prompts] if manifest.labels else []
        found = prove(Deployed(student), checkpoint, manifest.score.kind, spread(photos), texts)
        print(f"{asked.bundle} on {student.ran_on['image'].target}, {student.ran_on['image'].compute}")
    print(grid(proof_rows({f"{PROOF}{name}": value for name, value in found.items()})), end="")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m compress.prove", description="Is a bundle the checkpoint that it was made of?")
    parser.add_argument("checkpoint", help="a folder, or an id of the hub")
    parser.add_argument("bundle", help="a bundle with float32 graphs, such as DIR/teacher")
    parser.add_argument("--photos", required=True, type=Path, help="a folder with photos, at any depth")
    parser.add_argument("--on", metavar="TARGET", help="ov:cpu, ort:cpu, ...; default: the first that opens")
    return parser


if __name__ == "__main__":
    sys.exit(main())
