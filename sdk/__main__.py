"""`python -m sdk`: try a bundle on an image or ask it about one, inspect it, verify it on this machine, slim it."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn, TextIO

import sdk
from runtimes import FeedError, PupilError
from sdk.bundle import Bundle, open_bundle
from sdk.choose import PRECISIONS
from sdk.golden import verify
from sdk.slim import slim

USAGE = """python -m sdk BUNDLE IMAGE [--labels a,b,c] [--k K] [--on TARGET] [--precision P]
       python -m sdk BUNDLE IMAGE --ask QUESTION [--ask QUESTION ...] [--on TARGET] [--precision P]
       python -m sdk inspect BUNDLE
       python -m sdk verify BUNDLE
       python -m sdk slim BUNDLE --for TARGET [--precision P] [--no-text] --out DIR"""

_CLOSED = 141  # what a shell calls a program that a closed pipe ended


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when all went well, 1 when `verify` found a FAIL, 2 for bad input (one line on stderr)."""
    argv = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a label may hold what the console cannot write
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s")
    commands = {"inspect": _inspect, "verify": _verify, "slim": _slim}
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
    parser.add_argument("bundle", type=Path)
    return parser


def _look(argv: list[str]) -> int:
    parser = _parser("")
    parser.add_argument("image", type=Path)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--labels", help="comma-separated; without it the bundle's own label bank")
    what.add_argument("--ask", action="append", metavar="QUESTION", help="in place of labels; may come several times")
    parser.add_argument("--k", type=int, help="how many labels (3)")
    parser.add_argument("--on", help="a target such as ov:cpu; without it the first that proves itself")
    parser.add_argument("--precision", choices=list(PRECISIONS))
    args = parser.parse_args(argv)
    if args.ask is not None and args.k is not None:
        parser.error("argument --k: not allowed with argument --ask: a question has one answer")
    labels = [label.strip() for label in args.labels.split(",")] if args.labels is not None else None
    with sdk.load(args.bundle, on=args.on, precision=args.precision) as student:
        if args.ask is not None:
            answers = student.task("ask")(args.image, args.ask)
            lines = [f"{answer.label}   {question}" for answer, question in zip(answers, args.ask, strict=True)]
        else:
            answers = student.task("classify")(args.image, labels, 3 if args.k is None else args.k)
            lines = [answer.label for answer in answers]
        for answer, line in zip(answers, lines, strict=True):
            _say(f"{answer.score:6.1%}  {line}{_note(answer)}")
        for tower, ran in student.ran_on.items():
            _say(f"        {tower}: {ran.target}, {ran.variant}, computed in {ran.compute} ({ran.why})")
            for each in ran.tried:
                _say(f"        {tower}: not {each.target}, {each.variant}: {each.reason}")
    return 0


def _note(answer: sdk.Answer) -> str:
    notes = [f"{n} {what}" for n, what in ((answer.unknown, "unknown tokens"), (answer.cut, "tokens cut")) if n]
    return f"   ({', '.join(notes)})" if notes else ""


def _inspect(argv: list[str]) -> int:
    bundle = open_bundle(_parser("inspect").parse_args(argv).bundle)
    manifest = bundle.manifest
    size = sum(entry.bytes for entry in manifest.files.values())
    _say(f"{manifest.name}   format {manifest.format}   {size / 1e6:.1f} MB   {bundle.hash[:16]}")
    _say(f"tasks     {', '.join(manifest.tasks)}")
    _say(f"licence   {manifest.licences.package}; made from: {_pairs(manifest.licences.upstream)}")
    _say(
        f"frames    {manifest.image.size} x {manifest.image.size}, {manifest.image.resize}, crop {manifest.image.crop}"
    )
    if manifest.text:
        _say(f"texts     {manifest.text.length} tokens")
    if manifest.labels:
        _say(f"labels    {len(manifest.labels.items)}: {', '.join(item.label for item in manifest.labels.items)}")
    if manifest.fusion:
        _say(f"answers   {len(manifest.fusion.answers)}: {', '.join(manifest.fusion.answers)}")
    for tower, variants in manifest.graphs.items():
        for variant, graph in variants.items():
            megabytes = manifest.files[graph.file].bytes / 1e6
            _say(
                f"graph     {tower:<7}{variant:<6}{megabytes:8.2f} MB {graph.params / 1e6:7.2f} M params "
                f"{graph.macs / 1e6:9.1f} M macs   for {', '.join(graph.families)}"
            )
    for metric, figures in manifest.quality.items():
        for who, f in figures.items():
            _say(f"quality   {metric} {who}: {f.value:.4g} [{f.low:.4g}, {f.high:.4g}] n={f.n}")
    _say(f"made      {_pairs(manifest.provenance)}")
    return 0


def _verify(argv: list[str]) -> int:
    bundle: Bundle = open_bundle(_parser("verify").parse_args(argv).bundle)
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
    made = slim(open_bundle(args.bundle), args.target, args.out, text=not args.no_text, precision=args.precision)
    size = sum(entry.bytes for entry in made.manifest.files.values())
    _say(f"{args.out}: {size / 1e6:.2f} MB, {made.hash[:16]}")
    return 0


def _pairs(table: object) -> str:
    return ", ".join(f"{k} {v}" for k, v in table.items()) if isinstance(table, dict) else "-"


if __name__ == "__main__":
    sys.exit(main())
