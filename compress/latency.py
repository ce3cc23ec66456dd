"""How long a frame may take, and where: `5ms@ov:cpu`. No torch is imported here."""

import re
from dataclasses import dataclass

import runtimes
from runtimes import RecipeError, Target, Unavailable, parse_target

FORM = re.compile(r"(?P<ms>\d+(\.\d+)?) ?ms@(?P<target>\S+)")


@dataclass(frozen=True)
class Latency:
    """At most `ms` milliseconds for the image side of one frame on `target`."""

    ms: float
    target: Target


def parse_latency(text: str) -> Latency:
    """`5ms@ov:cpu`. Raises RecipeError, saying the form, for anything else."""
    match = FORM.fullmatch(text.strip())
    if match is None or not float(match["ms"]):
        raise RecipeError(f"prune.latency is milliseconds and a target, such as 5ms@ov:cpu, got {text!r}")
    try:
        return Latency(float(match["ms"]), parse_target(match["target"]))
    except Unavailable as error:
        raise RecipeError(f"prune.latency: {error}") from error


def check_target(target: Target) -> None:
    """Raises Unavailable if the target is not here, RecipeError if it opens no ONNX graphs."""
    if runtimes.opens(target.runtime) != ".onnx":
        raise RecipeError(f"prune.latency is measured on exported graphs, and {target} opens none; choose ov or ort")
    here = runtimes.devices(target.runtime)
    if target.place not in here:
        raise Unavailable(f"prune.latency: there is no {target} here; {target.runtime} has {', '.join(here)}")
