"""The one direction of imports, light imports, and names: read from the source, held here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each imports itself and what stands to its left.
ORDER = ("runtimes", "sdk", "benchmarks", "compress")
DEVICE = ("runtimes", "sdk")
HEAVY = {"torch", "torchvision", "timm", "transformers", "nncf", "onnx", "optimum", "rich", "accelerate", "safetensors"}
ENGINES = {"openvino", "onnxruntime", "tensorrt"}
# What a machine without an engine may still import at the top of a file.
LIGHT = {"numpy", "cv2"}
REFUSED_NAMES = {"utils", "helpers", "common", "core", "misc", "manager", "base"}
# pt.py is a runtime around torch itself, peers/ are other people's programs: both import inside functions only.
TORCH_INSIDE_FUNCTIONS = ("runtimes/pt.py", "benchmarks/peers/")


def files_of(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it runs when the module is imported) of every import in a file."""
    yield from _walk(ast.parse(path.read_bytes(), str(path)), at_top=True)


def _walk(node: ast.AST, at_top: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"a relative import hides its direction: {ast.unparse(child)}"
            yield str(child.module), at_top
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _walk(child, at_top=False)
        else:
            yield from _walk(
                child, at_top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            )


def root_of(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("package", ORDER)
def test_the_folders_are_here(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()


@pytest.mark.parametrize("path", files_of(*ORDER), ids=short)
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    to_the_right = set(ORDER[ORDER.index(package) + 1 :]) | {"tests", "android_demo"}
    found = {root_of(name) for name, _ in imports_of(path)}
    assert not found & to_the_right, f"{short(path)} may import {ORDER[: ORDER.index(package) + 1]} only"


@pytest.mark.parametrize("path", files_of(*DEVICE), ids=short)
def test_the_device_imports_nothing_heavy(path: Path) -> None:
    allowed = HEAVY if short(path).startswith(TORCH_INSIDE_FUNCTIONS) else set()
    for name, at_top in imports_of(path):
        root = root_of(name)
        assert root not in HEAVY or (root in allowed and not at_top), f"{short(path)} imports {name}"
        ours = root in sys.stdlib_module_names or root in DEVICE or root in LIGHT
        assert ours or not at_top, f"{short(path)} imports {name} while it is imported; do it inside a function"


@pytest.mark.parametrize("path", files_of("sdk"), ids=short)
def test_only_a_runtime_knows_its_engine(path: Path) -> None:
    assert not {root_of(name) for name, _ in imports_of(path)} & ENGINES


@pytest.mark.parametrize("path", files_of("runtimes"), ids=short)
def test_a_runtime_knows_one_engine_and_is_not_named_like_it(path: Path) -> None:
    engines = {root_of(name) for name, _ in imports_of(path)} & ENGINES
    assert len(engines) <= (not path.stem.startswith("_"))
    assert path.stem not in ENGINES


def modules_after(statement: str) -> set[str]:
    """Top-level modules of a fresh process after a statement."""
    code = f"{statement}\nimport sys; print(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import runtimes; runtimes.names()", "import sdk", "import sdk.__main__"])
def test_importing_loads_no_engine_and_nothing_heavy(statement: str) -> None:
    loaded = modules_after(statement)
    assert "runtimes" in loaded
    assert not loaded & (HEAVY | ENGINES | {"tokenizers", "benchmarks", "compress", "PIL"})


def _names() -> list[Path]:
    folders = {
        folder for path in files_of(*ORDER) for folder in path.parents if folder != ROOT and ROOT in folder.parents
    }
    return [*files_of(*ORDER, "tests"), *sorted(folders)]


@pytest.mark.parametrize("path", _names(), ids=short)
def test_names_say_something(path: Path) -> None:
    assert path.stem.strip("_").lower() not in REFUSED_NAMES
    assert path.stem in {"__init__", "__main__"} or path.stem not in sys.stdlib_module_names


def calls_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("path", files_of(*DEVICE), ids=short)
def test_the_device_runs_no_foreign_code_and_does_not_print(path: Path) -> None:
    calls = set(calls_of(path))
    assert not calls & {"eval", "exec", "compile", "__import__", "os.system"}
    assert not {name for name, _ in imports_of(path)} & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    source = path.read_text(encoding="utf-8")
    assert "allow_pickle=True" not in source
    assert "shell=True" not in source
    if path.name != "__main__.py":
        assert not calls & {"print", "pprint", "sys.stdout.write", "sys.stderr.write"}


@pytest.mark.parametrize("path", files_of("sdk"), ids=short)
def test_arrays_are_never_unpickled_by_default(path: Path) -> None:
    """np.load refuses pickles by default; written down, a reader of the code need not know."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"np.load", "np.lib.format.read_array"}:
            assert "allow_pickle=False" in ast.unparse(node)


def test_tests_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
