"""`python -m compress.data NAME --fetch DIR`: download a public data set at its pinned commit, every file hash-checked.

The same command goes on with a fetch that was stopped. Exit codes: 0 done, 2 a mistake or no network (one line says
which), 130 interrupted.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from compress.command import Parser, exit_code
from compress.fetch import API, RAW, SAME_COMMAND, Source, fetch
from compress.named import did_you_mean, names_in
from runtimes import RecipeError

THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return exit_code(lambda: _command(_parser().parse_args(arguments)), SAME_COMMAND)


def _command(asked: argparse.Namespace) -> None:
    files = fetch(source_of(asked.name), asked.fetch, asked.api, asked.raw)
    print(f"{asked.name}: {files} files, all checked, in {asked.fetch}")
    print(f"next: python -m compress.distill {asked.name} --set data.root={asked.fetch}")


def source_of(name: str) -> Source:
    """Where the data set in the layout `name` comes from. Raises RecipeError if none of that name can be fetched."""
    layouts = {each: importlib.import_module(f"compress.layouts.{each}") for each in names_in("compress.layouts")}
    sources = {each: layout.SOURCE for each, layout in layouts.items() if hasattr(layout, "SOURCE")}
    if name not in sources:
        raise RecipeError(
            f"there is no data set {name!r} to fetch{did_you_mean(name, sources)}; there is: {', '.join(sources)}"
        )
    source: Source = sources[name]
    return source


def _parser() -> Parser:
    parser = Parser(prog="python -m compress.data", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("name", help="the data set: grocery")
    parser.add_argument("--fetch", type=Path, required=True, metavar="DIR", help="the folder to make or to complete")
    parser.add_argument("--api", type=_address, default=API, metavar="URL", help="GitHub's API, or a mirror's")
    parser.add_argument("--raw", type=_address, default=RAW, metavar="URL", help="GitHub's raw files, or a mirror's")
    return parser


def _address(text: str) -> str:
    """Over plain http anybody on the way could put in other test photos, which no digest holds."""
    parts = urlsplit(text)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in THIS_MACHINE):
        raise argparse.ArgumentTypeError(
            f"wanted an address that begins with https:// (or http:// on this machine), got {text!r}"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
