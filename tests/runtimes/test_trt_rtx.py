"""Our graphs compiled by NVIDIA's own compiler, without a GPU: TensorRT for RTX builds on the CPU, for named GPUs.

Its parser and builder are TensorRT's: what it refuses is also held against our own check, graph by graph. In an
environment of its own, which downloads 170 MB. Engines do not run here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from compress.candidates import float_nodes
from compress.export import export_model
from compress.quantizers import Job
from compress.trt_variants import make_variant
from runtimes.__main__ import PROBE
from runtimes._trt_graph import _KNOWN
from tests.environments import ROOT, install, run_with
from tests.small_models import save_small, small_model
from tests.trt_graphs import ACCEPTED, REFUSED, STRICTER, tower_feeds

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux" or sys.maxsize < 2**32, reason="needs x86-64 Linux"),
]

LIBRARIES = "onnxruntime-ep-nv-tensorrt-rtx-cu12==0.5.0"
BINDINGS = "tensorrt-rtx-cu12-bindings==1.7.1.116"
# RTX cards of the kinds that kiosks have: Ampere, Ada.
GPUS = ("SM86", "SM89")
# Our own build code runs, on the compiler's bindings; only the GPUs are named besides.
BUILD = f"""
import json, sys
from pathlib import Path
import tensorrt_rtx_bindings as trt
from runtimes._trt_build import Build, BuildError, make_log

said = {{}}
for name in sys.argv[1:]:
    steps = []
    try:
        build = Build(trt, Path(name), make_log(trt))
        build._config.num_compute_capabilities = {len(GPUS)}
        for index, gpu in enumerate({GPUS!r}):
            build._config.set_compute_capability(getattr(trt.ComputeCapability, gpu), index)
        plan, timing = build.plan(build.shapes(None), None, lambda share: steps.append(share) or True)
        said[name] = [len(plan), len(timing), steps]
    except BuildError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = install(tmp_path_factory.mktemp("environments") / "rtx", LIBRARIES, BINDINGS)
    libraries = folder / "onnxruntime_ep_nv_tensorrt_rtx"
    for whole in libraries.glob("libtensorrt*_rtx.so.*.*"):  # under the names that the bindings link to
        (libraries / f"{whole.name.split('.so.')[0]}.so.1").symlink_to(whole.name)
    return folder


def built(site: Path, paths: list[Path]) -> Mapping[str, Any]:
    """Per path: sizes of plan and timing cache and the progress, or why it was refused."""
    done = run_with(BUILD, *map(str, paths), paths=(site,), libraries=site / "onnxruntime_ep_nv_tensorrt_rtx")
    assert done.returncode == 0, done.stderr
    said: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {Path(name).stem: what for name, what in said.items()}


def save(folder: Path, models: Mapping[str, onnx.ModelProto]) -> list[Path]:
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return [folder / f"{name}.onnx" for name in models]


def test_every_variant_of_every_tower_compiles(site: Path, tmp_path: Path) -> None:
    towers = export_model(save_small(small_model(), tmp_path / "m"), tmp_path)
    paths = [PROBE, *towers.values()]
    for tower, source in towers.items():
        keep, attention = float_nodes(tower, source)
        for variant in ("fp16-trt", "int8-trt"):
            paths.append(tmp_path / f"{tower}.{variant}.onnx")
            make_variant(variant, Job(source, paths[-1], tower_feeds(source, 10), keep, attention))
    said = built(site, paths)
    assert len(said) == 10
    refused = {name: what for name, what in said.items() if isinstance(what, str)}
    assert not refused
    for plan, _, steps in said.values():
        assert plan > 10_000
        assert steps == sorted(steps)
        assert steps
        assert 0 < steps[-1] <= 1


def test_our_check_takes_only_what_the_compiler_takes(site: Path, tmp_path: Path) -> None:
    said = built(site, save(tmp_path, {name: ACCEPTED[name]()[0] for name in ACCEPTED}))
    assert {name: what for name, what in said.items() if isinstance(what, str)} == {}


def test_the_compiler_refuses_what_our_check_refuses(site: Path, tmp_path: Path) -> None:
    said = built(site, save(tmp_path, {name: REFUSED[name]()[0] for name in REFUSED}))
    assert sorted(name for name, what in said.items() if not isinstance(what, str)) == []


def test_the_compiler_takes_uint8_without_a_word(site: Path, tmp_path: Path) -> None:
    """Why our check is stricter: it would compute int8, and saturate what is above 127."""
    names = ("uint8 with zero point 0", "no zero point")
    said = built(site, save(tmp_path, {name: STRICTER[name]()[0] for name in names}))
    assert not any(isinstance(what, str) for what in said.values())


def test_the_operators_we_let_through_are_the_parsers_own(site: Path) -> None:
    code = """
import json, sys
import tensorrt_rtx_bindings as trt
log = trt.Logger(trt.Logger.ERROR)
network = trt.Builder(log).create_network(0)
parser = trt.OnnxParser(network, log)
print(json.dumps([name for name in json.loads(sys.argv[1]) if not parser.supports_operator(name)]))
"""
    libraries = site / "onnxruntime_ep_nv_tensorrt_rtx"
    done = run_with(code, json.dumps(sorted(_KNOWN)), paths=(site,), libraries=libraries)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    schemas = {each.name for each in onnx.defs.get_all_schemas_with_history() if each.domain == ""}
    assert schemas >= _KNOWN


def test_the_environment_is_not_this_one(site: Path) -> None:
    assert ROOT not in site.parents
