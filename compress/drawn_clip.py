"""`python -m compress.drawn_clip FOLDER`: a CLIP of transformers with random weights, in the shape of
openai/clip-vit-base-patch32, saved as its library does it. Time, memory and parity do not ask what a network has
learnt: this is what benchmarks/peers.py compares on where no real weights can be had.

CLIP's own vocabulary comes from open_clip_torch.
"""

import argparse
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

from compress.command import Parser, exit_code
from compress.installed import package_folder
from runtimes import RecipeError

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = "bpe_simple_vocab_16e6.txt.gz"
CARD = "---\nlicense: mit\n---\nRandom weights in the shape of openai/clip-vit-base-patch32, drawn by Edge Pupil.\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return exit_code(lambda: save_clip(_parser().parse_args(arguments).folder), "run the same command again")


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's 49,408 tokens and their numbers, and its merges. Raises Unavailable without open_clip_torch."""
    packed = package_folder("open_clip", "CLIP's vocabulary") / WORDS
    from open_clip.tokenizer import bytes_to_unicode

    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges), START, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def save_clip(folder: Path) -> None:
    """Model, tokenizer, preprocessing and a card, 605 MB. The weights are drawn from one seed, so that activations keep
    their size from layer to layer. Raises RecipeError for a folder that is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder} is there already; give a folder that is not")
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape) * (parameter.numel() / len(parameter)) ** -0.5)
    model.save_pretrained(folder)
    vocab, merges = clip_vocabulary()
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)  # type: ignore[arg-type]
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
    (folder / "README.md").write_text(CARD, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m compress.drawn_clip", description="A CLIP with random weights, of full size.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what is written; it must not be there yet")
    return parser


if __name__ == "__main__":
    sys.exit(main())
