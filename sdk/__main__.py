"""`python -m sdk`: try a bundle on an image or ask it about one, search photos, inspect it, verify it here, slim it."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn, TextIO

import numpy as np

import sdk
from runtimes import FeedError, PupilError, Unavailable
from sdk.bundle import Bundle, open_bundle
from sdk.card import read_card
from sdk.choose import PRECISIONS
from sdk.describe import describe
from sdk.golden import verify
from sdk.places import find
from sdk.slim import slim

USAGE = """python -m sdk BUNDLE IMAGE [--labels a,b,c] [--k K] [--groups] [--on TARGET] [--precision P]
       python -m sdk BUNDLE IMAGE --ask QUESTION [--ask QUESTION ...] [--on TARGET] [--precision P]
       python -m sdk search BUNDLE TEXT PHOTO [PHOTO ...] [--k K] [--on TARGET] [--precision P]
       python -m sdk inspect BUNDLE
       python -m sdk card BUNDLE
       python -m sdk verify BUNDLE
       python -m sdk slim BUNDLE --for TARGET [--precision P] [--no-text] --out DIR

BUNDLE is a folder, or the bare name of one in bundles/ here, beside the sdk package, or in the cache folder."""

_CLOSED = 141  # what a shell calls a program that a closed pipe ended


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when all went well, 1 when `verify` found a FAIL, 2 for bad input (one line on stderr)."""
    argv = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a label may hold what the console cannot write
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s")
    commands = {"search": _search, "inspect": _inspect, "card": _card, "verify": _verify, "slim": _slim}
    try:
        code = commands[argv[0]](argv[1:]) if argv and argv[0] in commands else _look(argv)
        sys.stdout.flush()
        return code
    except PupilError as error:
        _say(f"error: {' '.join(str(error).split())}", sys.stderr)
        return 2
    except BrokenPipeError:  # `| head`; without another stdout Python would complain once more while it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED


def _say(line: str, stream: TextIO | None = None) -> None:
    """Print a line as text only: what a bundle brings could else move the cursor, or hide a line."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    print(safe, file=stream or sys.stdout)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise FeedError(f"{message}; run: python -m sdk --help")


def _parser(name: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m sdk {name}".strip(), usage=USAGE)
    parser.add_argument("bundle")  # no Path, which would make the bare name "x" of "./x"
    return parser


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--on", help="a target such as ov:cpu; without it the first that proves itself")
    parser.add_argument("--precision", choices=list(PRECISIONS))


def _look(argv: list[str]) -> int:
    parser = _parser("")
    parser.add_argument("image", type=Path)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--labels", help="comma-separated; without it the bundle's own label bank")
    what.add_argument("--ask", action="append", metavar="QUESTION", help="in place of labels; may come several times")
    parser.add_argument("--k", type=int, help="how many labels (3)")
    parser.add_argument("--groups", action="store_true", help="answer with groups of labels")
    _add_where(parser)
    args = parser.parse_args(argv)
    for name, given in (("--k", args.k is not None), ("--groups", args.groups)):
        if args.ask is not None and given:
            parser.error(f"argument {name}: not allowed with argument --ask: a question has one answer")
    labels = [label.strip() for label in args.labels.split(",")] if args.labels is not None else None
    with sdk.load(args.bundle, on=args.on, precision=args.precision, budget_s=0) as student:
        if args.ask is not None:
            answers = student.task("ask")(args.image, args.ask)
            lines = [f"{answer.label}   {question}" for answer, question in zip(answers, args.ask, strict=True)]
        else:
            answers = student.task("classify")(args.image, labels, 3 if args.k is None else args.k, groups=args.groups)
            lines = [answer.label for answer in answers]
        if not answers[0].known:
            _say(f"none of these (best cosine below {student.bundle.manifest.unknown_threshold:g})")
        for answer, line in zip(answers, lines, strict=True):
            _say(f"{answer.score:6.1%}  {line}{_note(answer)}")
        _say_where(student)
    return 0


def _say_where(student: sdk.Student) -> None:
    for tower, ran in student.ran_on.items():
        for line in str(ran).splitlines():
            _say(f"        {tower}: {line}")


def _note(answer: sdk.Answer) -> str:
    notes = [f"{n} {what}" for n, what in ((answer.unknown, "unknown tokens"), (answer.cut, "tokens cut")) if n]
    return f"   ({', '.join(notes)})" if notes else ""


def _search(argv: list[str]) -> int:
    parser = _parser("search")
    parser.add_argument("text")
    parser.add_argument("photos", nargs="+", metavar="photo", type=Path)
    parser.add_argument("--k", type=int, default=5, help="how many photos (5)")
    _add_where(parser)
    args = parser.parse_args(argv)
    with sdk.load(args.bundle, on=args.on, precision=args.precision, budget_s=0) as student:
        among = np.concatenate([student.embed_images(photo) for photo in args.photos])  # a photo in memory at a time
        for hit in student.search(args.text, among, args.k):
            _say(f"{hit.score:6.3f}  {args.photos[hit.index]}")
        _say_where(student)
    return 0


def _inspect(argv: list[str]) -> int:
    for line in describe(open_bundle(find(_parser("inspect").parse_args(argv).bundle))):
        _say(line)
    return 0


def _card(argv: list[str]) -> int:
    bundle = open_bundle(find(_parser("card").parse_args(argv).bundle))
    if bundle.manifest.card is None:
        raise Unavailable(f"{bundle.path} has no model card; ask its maker, or run: python -m sdk inspect BUNDLE")
    for line in read_card(bundle.file(bundle.manifest.card)).splitlines():
        _say(line.expandtabs())
    return 0


def _verify(argv: list[str]) -> int:
    bundle: Bundle = open_bundle(find(_parser("verify").parse_args(argv).bundle))
    verdicts = verify(bundle)
    _say(f"{'':6}{'what':<14}{'target':<14}{'computed in':<14}{'error':>10}{'tolerance':>12}")
    for v in verdicts:
        _say(
            f"{'PASS' if v.passed else 'FAIL':<6}{v.subject:<14}{v.target:<14}{v.compute:<14}"
            f"{v.error:>10.2g}{v.tolerance:>12.2g}  {v.note}".rstrip()
        )
    engines = [v for v in verdicts if v.target != "sdk"]
    if not engines:
        _say("no engine on this machine opens this bundle; run: python -m runtimes", sys.stderr)
    return 0 if engines and all(v.passed for v in verdicts) else 1


def _slim(argv: list[str]) -> int:
    parser = _parser("slim")
    parser.add_argument("--for", dest="target", required=True, help="a target such as ov:cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", choices=list(PRECISIONS), help="without it the smallest")
    parser.add_argument("--no-text", action="store_true", help="leave the text tower behind; the label bank stays")
    args = parser.parse_args(argv)
    made = slim(open_bundle(find(args.bundle)), args.target, args.out, text=not args.no_text, precision=args.precision)
    _say(f"{args.out}: {made.size / 1e6:.2f} MB, {made.hash[:16]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
