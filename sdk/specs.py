"""What bundle.json says, held against itself: numbers, enumerations, and the ports that each tower must have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runtimes import BundleError
from sdk.manifest import TOWERS, GraphSpec, Manifest, PortSpec
from sdk.resize import MAX_SIZE, MIN_SIZE, RESIZES, crops

LIMITS = {
    "image.size": (MIN_SIZE, MAX_SIZE),
    "text.length": (1, 4096),
    "dim": (1, 65_536),
    "fusion.width": (1, 4096),
    "fusion.image_tokens": (1, 4096),
    "fusion.answers": (1, 65_536),
    "unknown_threshold": (-1, 1),
}

Ports = Mapping[str, PortSpec]


def check_specs(root: Path, manifest: Manifest) -> None:
    """Everything about bundle.json that needs no other file. Raises BundleError with the first thing that is wrong."""
    _check_numbers(root, manifest)
    choices = {
        "score.kind": (manifest.score.kind, ("softmax", "sigmoid")),
        "image.resize": (manifest.image.resize, tuple(RESIZES)),
        "image.crop": (manifest.image.crop, crops(manifest.image.resize)),
    }
    for name, (choice, known) in choices.items():
        if choice not in known:
            raise BundleError(f"{root} says {name} = {choice!r}; this reader knows: {', '.join(known)}")
    if "image" not in manifest.graphs or manifest.graphs.keys() - {*TOWERS}:
        towers = ", ".join(manifest.graphs) or "none"
        raise BundleError(f"{root} has the towers {towers}; it must have image, may have text and fusion, and no other")
    _check_graphs(root, manifest)
    _check_labels(root, manifest)
    _check_answers(root, manifest)
    for template in manifest.text.templates if manifest.text else ():
        if "{}" not in template:
            raise BundleError(f"{root} has the template {template!r}; a template says with {{}} where the label goes")


def _check_numbers(root: Path, manifest: Manifest) -> None:
    given: dict[str, float] = {"image.size": manifest.image.size, "dim": manifest.dim}
    if manifest.unknown_threshold is not None:
        given["unknown_threshold"] = manifest.unknown_threshold
    if manifest.text is not None:
        given["text.length"] = manifest.text.length
    if manifest.fusion is not None:
        given["fusion.width"] = manifest.fusion.width
        given["fusion.image_tokens"] = manifest.fusion.image_tokens
        given["fusion.answers"] = len(manifest.fusion.answers)
    for name, value in given.items():
        low, high = LIMITS[name]
        if not low <= value <= high:
            what = f"has {value} {name}" if name == "fusion.answers" else f"says {name} = {value}"
            raise BundleError(f"{root} {what}; it must be {low} to {high}")


def _check_labels(root: Path, manifest: Manifest) -> None:
    items = manifest.labels.items if manifest.labels else ()
    if len({item.label for item in items}) != len(items):
        raise BundleError(f"{root} has a label twice in its bank")
    for item in items:
        if not item.label.strip() or item.unknown < 0:
            raise BundleError(
                f"{root} has the label {item.label!r} with {item.unknown} unknown tokens; wanted a text that is not "
                "blank, and 0 or more; make the bundle again"
            )
        if item.group and not item.group.strip():
            raise BundleError(
                f"{root} has the label {item.label!r} in the group {item.group!r}; wanted a text that is not blank, or "
                "'' for none; make the bundle again"
            )


def _check_answers(root: Path, manifest: Manifest) -> None:
    answers = manifest.fusion.answers if manifest.fusion else ()
    if len(set(answers)) != len(answers) or not all(answer.strip() for answer in answers):
        raise BundleError(f"{root} has an answer that is blank, or one twice; make the bundle again")


def _check_graphs(root: Path, manifest: Manifest) -> None:
    empty = [tower for tower, variants in manifest.graphs.items() if not variants]
    if empty:
        raise BundleError(f"{root} has no graph under graphs.{empty[0]}; leave the tower out, or make the bundle again")
    for tower, spec in (("text", manifest.text), ("fusion", manifest.fusion)):
        if (spec is None) == (tower in manifest.graphs):
            has = f"a {tower} graph but {tower} is null" if spec is None else f"{tower} but no {tower} graph"
            raise BundleError(f"{root} has {has}; wanted both or neither; make the bundle again")
    if manifest.fusion is not None and manifest.text is None:
        raise BundleError(f"{root} has a fusion tower but no text tower to read questions with; make the bundle again")
    for tower, variants in manifest.graphs.items():
        for variant, graph in variants.items():
            if not graph.file.endswith(".onnx"):  # an engine goes by the ending, and x.ort is another format to it
                raise BundleError(
                    f"{root}: graphs.{tower}.{variant}.file wanted a name that ends in .onnx, got {graph.file!r}; "
                    "make the bundle again"
                )
            _check_ports(root, manifest, tower, variant, graph)


def tower_ports(manifest: Manifest, tower: str) -> tuple[Ports, Ports]:
    """What a tower of this bundle must take, and what it must give; FORMAT.md has the table."""
    length = manifest.text.length if manifest.text else 0
    ids = PortSpec("int64", (None, length))
    takes = {
        "image": {"image": PortSpec("uint8", (None, manifest.image.size, manifest.image.size, 3))},
        "text": {"ids": ids, "mask": ids},
    }
    gives = {"embedding": PortSpec("float32", (None, manifest.dim))}
    spec = manifest.fusion
    if spec is None:
        return takes[tower], gives
    tokens = {
        "image": PortSpec("float32", (None, spec.image_tokens, spec.width)),
        "text": PortSpec("float32", (None, length, spec.width)),
    }
    if tower == "fusion":
        return {**tokens, "mask": ids}, {"logits": PortSpec("float32", (None, len(spec.answers)))}
    return takes[tower], {**gives, "tokens": tokens[tower]}


def _check_ports(root: Path, manifest: Manifest, tower: str, variant: str, graph: GraphSpec) -> None:
    """Feeds are made from the specs, not from the graphs, so both must agree."""
    takes, gives = tower_ports(manifest, tower)
    spare = graph.outputs.get("tokens")
    if manifest.fusion is None and spare is not None and _is_tokens(spare):  # what is left without the fusion tower
        gives = {**gives, "tokens": spare}
    if graph.inputs != takes or graph.outputs != gives:
        raise BundleError(
            f"{root}: graphs.{tower}.{variant} must take {takes} and give {gives}, "
            f"but says {graph.inputs} and {graph.outputs}"
        )


def _is_tokens(port: PortSpec) -> bool:
    return port.dtype == "float32" and len(port.shape) == 3 and port.shape[0] is None and None not in port.shape[1:]
