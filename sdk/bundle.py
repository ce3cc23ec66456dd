"""Reading a bundle. It is data from outside: everything is checked before an engine or a parser sees it."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtimes import Array, BundleError, Unavailable
from sdk.card import read_card
from sdk.manifest import FORMAT, REQUIRES, FileEntry, GraphSpec, Manifest
from sdk.onnx_scan import check_onnx
from sdk.schema import parse, read_json
from sdk.specs import check_specs

MANIFEST = "bundle.json"
# A file name inside a bundle: flat, portable to every file system, and unable to climb out.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_MANIFEST = 64 << 20
_MAX_FILES = 256
_MAX_ARRAY = 256 << 20
NORM_SLACK = 1e-3  # a vector that was normalised in another precision still passes


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: a checked description and the files it lists. Opens no engine. `path` is absolute."""

    path: Path
    manifest: Manifest
    hash: str

    @property
    def size(self) -> int:
        """Bytes on disk: of every listed file, and of bundle.json."""
        return sum(entry.bytes for entry in self.manifest.files.values()) + (self.path / MANIFEST).stat().st_size

    def file(self, name: str) -> Path:
        """Path of a listed file. Raises BundleError for a name that is not listed."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} does not list the file {name!r}")
        return self.path / name

    def graph(self, tower: str, variant: str) -> GraphSpec:
        """A tower's graph in one variant. Raises Unavailable naming the variants there are."""
        variants = self.variants(tower)
        if variant not in variants:
            raise Unavailable(f"{self.path} has no {variant!r} {tower} graph; it has: {', '.join(variants)}")
        return variants[variant]

    def check_unchanged(self, graph: GraphSpec) -> None:
        """Hash a graph's files again: a tower may be opened days after the bundle was. Raises BundleError."""
        names = (graph.file, *graph.external)
        _check_files(self.path, {name: self.manifest.files[name] for name in names})

    def variants(self, tower: str) -> Mapping[str, GraphSpec]:
        """Variants of a tower. Raises Unavailable when the bundle has no such tower."""
        if tower not in self.manifest.graphs:
            slimmed = tower == "text" or (tower == "fusion" and "text" not in self.manifest.graphs)
            left = "it was slimmed with --no-text; use the maker's bundle" if slimmed else "ask its maker"
            raise Unavailable(f"{self.path} has no {tower} tower: {left}")
        return self.manifest.graphs[tower]

    def weight(self, graph: GraphSpec) -> int:
        """Bytes of a graph's files, its side files included."""
        return sum(self.manifest.files[name].bytes for name in (graph.file, *graph.external))

    @cached_property
    def label_vectors(self) -> NDArray[np.float32]:
        """The bank's vectors, float32 (labels, dim), unit norm; no rows without a bank. Raises BundleError."""
        bank = self.manifest.labels
        if bank is None:
            return np.zeros((0, self.manifest.dim), np.float32)
        data = io.BytesIO(self.file(bank.vectors).read_bytes())
        try:
            vectors = np.lib.format.read_array(data, allow_pickle=False, max_header_size=10_000)
        except Exception as error:  # NumPy lets through whatever its header's parser raises
            raise BundleError(f"{bank.vectors} of {self.path} is not a plain array: {error}") from error
        wanted = (len(bank.items), self.manifest.dim)
        if vectors.dtype != np.float32 or vectors.shape != wanted:
            raise BundleError(
                f"{bank.vectors} of {self.path} must be float32 {wanted}, is {vectors.dtype} {vectors.shape}"
            )
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if not (np.abs(norms - 1) < NORM_SLACK).all():  # a NaN is not below
            raise BundleError(f"{bank.vectors} of {self.path} holds a vector that is not of unit length")
        return vectors

    @cached_property
    def golden(self) -> Mapping[str, Array]:
        """Arrays of golden.npz by name; sdk/FORMAT.md lists them. Raises BundleError."""
        import zipfile  # with all its compressions, which is much for `import sdk`

        path = self.file(self.manifest.golden)
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > _MAX_ARRAY:
                raise ValueError(f"it unpacks to {size} bytes, at most {_MAX_ARRAY} are allowed")
            with np.load(path, allow_pickle=False, max_header_size=10_000) as arrays:
                return {name: np.asanyarray(arrays[name]) for name in arrays.files}
        except Exception as error:  # zip, zlib and NumPy's header parser each have their own
            raise BundleError(f"{path.name} of {self.path} is not a plain .npz archive: {error}") from error


def open_bundle(path: Path | str) -> Bundle:
    """Open and check a bundle: format, names, hashes, graphs. Raises BundleError with the first thing that is wrong."""
    if not isinstance(path, str | os.PathLike):
        raise BundleError(f"a bundle is named by the path of its folder, but a {type(path).__name__} came")
    root = Path(path)
    try:
        data = _read_manifest(root)
        manifest = _parse_manifest(data, root)
        _check_files(root, manifest.files)
        _check_references(root, manifest)
        check_specs(root, manifest)
        if manifest.card is not None:
            read_card(root / manifest.card)
        for tower, variants in manifest.graphs.items():
            for variant, graph in variants.items():
                _check_graph(root, graph, f"graphs.{tower}.{variant}")
    except OSError as error:
        raise BundleError(f"{root} cannot be read: {error}; check the path and its permissions") from error
    return Bundle(root.absolute(), manifest, hashlib.sha256(data).hexdigest())


def _read_manifest(root: Path) -> bytes:
    path = root / MANIFEST
    if not root.is_dir() or not path.is_file():
        raise BundleError(f"{root} is not a bundle: a bundle is a folder that holds {MANIFEST}")
    if path.is_symlink():
        raise BundleError(f"{path} is a symbolic link; copy the bundle itself, with the files it points at")
    if path.stat().st_size > _MAX_MANIFEST:
        raise BundleError(f"{path} is larger than {_MAX_MANIFEST} bytes")
    return path.read_bytes()


def _parse_manifest(data: bytes, root: Path) -> Manifest:
    try:
        table = read_json(data.decode())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{root / MANIFEST} is not JSON: {error}") from error
    if not isinstance(table, dict) or not isinstance(table.get("format"), int):
        raise BundleError(f"{root / MANIFEST} does not say its format; it is no Edge Pupil bundle")
    if table["format"] != FORMAT:
        raise BundleError(
            f"{root} has format {table['format']}, this reader knows format {FORMAT}; run: pip install -U edge-pupil"
        )
    requires = table.get("requires", [])
    each = requires if isinstance(requires, list) else [requires]
    unknown = [r for r in each if not isinstance(r, str) or r not in REQUIRES]
    if unknown:
        raise BundleError(
            f"{root} requires {unknown[0]!r}, which this reader cannot do; run: pip install -U edge-pupil"
        )
    return parse(Manifest, table, MANIFEST)


def _check_files(root: Path, files: Mapping[str, FileEntry]) -> None:
    if len(files) > _MAX_FILES:
        raise BundleError(f"{root} lists {len(files)} files; at most {_MAX_FILES}")
    for name, entry in files.items():
        check_name(name, root)
        path = root / name
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{root} lacks the file {name!r}; copy the bundle again")
        size = path.stat().st_size
        if size != entry.bytes or sha256_of(path) != entry.sha256:
            raise BundleError(f"{path} is damaged: its hash is not the one {MANIFEST} lists; copy the bundle again")


def _check_references(root: Path, manifest: Manifest) -> None:
    used = [manifest.golden]
    used += [manifest.text.tokenizer] if manifest.text else []
    used += [manifest.labels.vectors] if manifest.labels else []
    used += [manifest.card] if manifest.card is not None else []
    for variants in manifest.graphs.values():
        for graph in variants.values():
            used += [graph.file, *graph.external]
    missing = [name for name in used if name not in manifest.files]
    if missing:
        raise BundleError(f"{root} uses the file {missing[0]!r} but does not list it under files")


def _check_graph(root: Path, graph: GraphSpec, where: str) -> None:
    """The ONNX file must be what bundle.json says it is, and must reach for nothing outside."""
    facts = check_onnx(root / graph.file, allowed_external=graph.external)
    if facts.opset != graph.opset:
        raise BundleError(f"{root}: {where}.opset says {graph.opset}, but {graph.file} has {facts.opset}")
    for side, declared, found in (
        ("inputs", graph.inputs, facts.inputs),
        ("outputs", graph.outputs, facts.outputs),
    ):
        really = {port.name: (port.dtype, port.shape) for port in found}
        said = {name: (port.dtype, port.shape) for name, port in declared.items()}
        if really != said:
            raise BundleError(f"{root}: {where}.{side} says {said}, but {graph.file} has {really}")


def check_name(name: str, root: Path) -> None:
    """Raise BundleError unless `name` may be a file of the bundle at `root`."""
    if not _NAME.fullmatch(name) or name == MANIFEST:
        raise BundleError(f"{root} lists the file name {name!r}; names are letters, digits, '.', '_' and '-' only")


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
