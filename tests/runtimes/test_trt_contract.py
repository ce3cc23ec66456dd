"""Every attribute, method and enum of TensorRT and CUDA that our code names, held against the real bindings.

The bindings import without a GPU and without TensorRT's libraries, once shared objects with the names and the empty
functions that they link to are there. What our code uses is read from its source, by the names of its variables, so
that a new call is held too. What the calls do, only a GPU shows.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.environments import ROOT, install, run_with

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc, on Linux"),
]

BINDINGS = ("10.16", "11.4")
CUDA = ("12.9", "13")
SOURCES = ("trt", "_trt_build", "_trt_slot")
# Our variables' names, and what they hold.
HELD = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "tensor": "ITensor",
    "grown": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
GIVES = {("OnnxParser", "get_error"): "ParserError", ("ICudaEngine", "get_tensor_dtype"): "DataType"}
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
LINKED = re.compile(r" U ((?:create|get|init)\w*(?:_INTERNAL|Registry|Version|Plugins))$", re.MULTILINE)

# What the child tells: for each dotted path whether it is there, and its docstring, which holds the signatures.
ASK = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
told = {}
for path in json.loads(sys.argv[2]):
    found = module
    for part in path.split("."):
        found = getattr(found, part, None)
    told[path] = None if found is None else str(getattr(found, "__doc__", None) or "")
print(json.dumps(told))
"""


def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / "runtimes" / f"{name}.py").read_bytes())


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` of an expression, with what a variable of ours holds for `a`; None for anything else."""
    if isinstance(node, ast.Name):
        return HELD.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else None
    if isinstance(node, ast.Call) and (made := dotted(node.func)) and made.count(".") == 1:
        return GIVES.get(tuple(made.split(".")))  # type: ignore[arg-type]
    return None


def uses() -> Iterator[tuple[str, int | None]]:
    """(path inside of tensorrt, number of arguments of a call or None) of all that our sources name."""
    classes = {*HELD.values(), *GIVES.values()}
    for name in SOURCES:
        whole = tree(name)
        called = {id(node.func): node for node in ast.walk(whole) if isinstance(node, ast.Call)}
        for node in ast.walk(whole):
            if isinstance(node, ast.ClassDef):
                yield from overridden(node)
            path = dotted(node) if isinstance(node, ast.Attribute) else None
            first, _, rest = (path or "").partition(".")
            if path is None or not (first == "trt" or first in classes):
                continue
            call = called.get(id(node))
            count = None if call is None else len(call.args) + len(call.keywords) - path.endswith(".__init__")  # self
            yield (rest if first == "trt" else path), count


def overridden(made: ast.ClassDef) -> Iterator[tuple[str, int | None]]:
    """Methods of a class of ours that TensorRT calls."""
    for base in made.bases:
        path = dotted(base) or ""
        if path.startswith("trt."):
            for method in made.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield f"{path.removeprefix('trt.')}.{method.name}", len(method.args.args) - 1


def driver_uses() -> Iterator[tuple[str, int | None]]:
    """The same of CUDA's driver API: `_ask(driver.function, arguments)`, or a call itself."""
    for node in ast.walk(tree("_cuda")):
        path = dotted(node) if isinstance(node, ast.Attribute) else None
        if path is not None and path.startswith("driver."):
            yield path.removeprefix("driver."), None
        if isinstance(node, ast.Call):
            asked = node.args and ast.unparse(node.func).endswith("_ask") and dotted(node.args[0])
            function, count = (asked, len(node.args) - 1) if asked else (dotted(node.func), len(node.args))
            if function and function.startswith("driver.cu"):
                yield function.removeprefix("driver."), count


def takes(doc: str, name: str) -> set[int]:
    """Numbers of arguments, without self, that the signatures in a docstring allow."""
    allowed: set[int] = set()
    for start in re.finditer(rf"\b{name}\(", doc):
        parts, depth = [""], 0
        for letter in doc[start.end() :]:
            depth += (letter in "([{<") - (letter in ")]}>")
            if depth < 0:
                break
            if letter == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += letter
        named = [part.strip() for part in parts if part.strip() and not part.strip().startswith("self")]
        if named != ["*args", "**kwargs"]:
            least = sum("=" not in part for part in named)
            allowed |= set(range(least, len(named) + 1))
    return allowed


def hold(told: dict[str, str | None], used: list[tuple[str, int | None]]) -> None:
    missing = sorted({path for path, _ in used if told[path] is None})
    assert not missing
    for path, count in used:
        doc, name = told[path] or "", path.rpartition(".")[2]
        if count is not None and f"{name}(" in doc:
            assert count in takes(doc, name), (path, count, doc)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


def bindings(folder: Path, version: str) -> tuple[Path, Path]:
    """The bindings, and a folder of shared objects for what they link to."""
    site = install(folder / f"trt{version}", f"tensorrt-cu12-bindings=={version}.*")
    # The wheel of that name, which only says where the libraries are, is two gigabytes with them.
    (site / "tensorrt.py").write_text("from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n")
    libraries = folder / f"lib{version}"
    if not libraries.is_dir():
        libraries.mkdir()
        shared = site / "tensorrt_bindings" / "tensorrt.so"
        symbols = subprocess.run(["nm", "-D", "-u", str(shared)], capture_output=True, text=True, check=True).stdout
        functions = sorted(set(LINKED.findall(symbols)))
        assert functions
        source = libraries / "empty.c"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
        for library in LIBRARIES:
            name = f"lib{library}.so.{version.split('.', maxsplit=1)[0]}"
            flags = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(libraries / name)]
            subprocess.run(["gcc", *flags, str(source)], check=True, timeout=60)
    return site, libraries


def ask(module: str, used: list[tuple[str, int | None]], site: Path, libraries: Path | None) -> Any:
    paths = json.dumps(sorted({path for path, _ in used}))
    done = run_with(ASK, module, paths, paths=(site,), libraries=libraries)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_our_uses_are_found() -> None:
    found = dict(uses())
    assert found["IOptimizationProfile.set_shape"] == 4
    assert found["ParserError.desc"] == 0
    assert found["IProgressMonitor.phase_start"] == 3
    assert found["ILogger.Severity.ERROR"] is None
    assert found["DataType.name"] is None
    assert len(found) > 40
    assert ("cuMemcpyHtoDAsync", 4) in set(driver_uses())


@pytest.mark.parametrize("version", BINDINGS)
def test_all_that_we_call_is_in_the_bindings(folder: Path, version: str) -> None:
    used = [*uses(), *((f"DataType.{name}", None) for name in data_types())]
    site, libraries = bindings(folder, version)
    told = ask("tensorrt", [*used, ("__version__", None)], site, libraries)
    hold(told, used)


def data_types() -> list[str]:
    from runtimes.trt import _DTYPES

    return list(_DTYPES)


def test_what_eleven_removed_is_not_named(folder: Path) -> None:
    """That the check sees a difference at all: 10.16 has these, 11.4 has not."""
    gone: list[tuple[str, int | None]] = [
        ("BuilderFlag.FP16", None),
        ("BuilderFlag.INT8", None),
        ("IBuilderConfig.int8_calibrator", None),
        ("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", None),
    ]
    old, new = (ask("tensorrt", gone, *bindings(folder, version)) for version in BINDINGS)
    assert None not in old.values()
    assert set(new.values()) == {None}
    assert not {path for path, _ in gone} & {path for path, _ in uses()}


@pytest.mark.parametrize("version", CUDA)
def test_all_that_we_call_is_in_cuda_python(folder: Path, version: str) -> None:
    used = list(driver_uses())
    site = install(folder / f"cuda{version}", f"cuda-bindings=={version}.*", dependencies=True)
    hold(ask("cuda.bindings.driver", used, site, None), used)


@pytest.mark.parametrize("version", BINDINGS)
def test_without_a_driver_it_says_so(folder: Path, version: str) -> None:
    site, libraries = bindings(folder, version)
    code = f"""
import runtimes
try:
    print(runtimes.devices("trt"))
except runtimes.Unavailable as error:
    print(error)
try:
    runtimes.open_session("trt:cuda.0", {str(ROOT / "runtimes" / "probe.onnx")!r})
except runtimes.Unavailable as error:
    print(error)
"""
    done = run_with(code, paths=(site,), libraries=libraries)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    if said[0].startswith("('cuda."):
        pytest.skip("a GPU is here")
    assert len(said) == 2
    for line in said:
        assert line.startswith("no NVIDIA GPU can be used: ")
        assert line.endswith("install its driver, then run: nvidia-smi")
