"""One test for every runtime and device of this machine: what `runtimes.Session` promises, kept by each.

CUDA is not on the machines that run this by default; where it is, `ort:cuda.0` joins the parameters by itself.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import runtimes
from runtimes import Array, FeedError, Session, Unavailable, ort, parse_target
from runtimes import __main__ as doctor
from runtimes.__main__ import TOLERANCE, probe_answer, probe_feeds
from tests.bundles import LENGTH, SIZE, build
from tests.graphs import probe_graph


def here(runtime: str) -> set[str]:
    try:
        return {f"{runtime}:{device}" for device in runtimes.devices(runtime)}
    except Unavailable:
        return set()


# In CI all engines must be here: a target that is not then fails every test below instead of going missing.
_REQUIRED = {"ort:cpu", "ov:cpu", "pt:cpu"} if os.environ.get("CI") == "true" else set()
TARGETS = sorted({target for runtime in runtimes.names() for target in here(runtime)} | _REQUIRED)
each_target = pytest.mark.parametrize("target", TARGETS)
# Those that open graphs built in ONNX; `pt` has its own in test_pt.py.
each_onnx_target = pytest.mark.parametrize("target", [t for t in TARGETS if not t.startswith("pt:")])


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def graph_of(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The probe by file ending: the same function in every form that a runtime here opens."""
    folder = tmp_path_factory.mktemp("graphs")
    save(probe_graph(), folder / "probe.onnx")
    return {runtimes.opens(parse_target(t).runtime): doctor.probe_for(t, folder) for t in TARGETS}


@pytest.fixture
def probe(target: str, probes: dict[str, Path]) -> Path:
    return probes[ending(target)]


def ending(target: str) -> str:
    return runtimes.opens(parse_target(target).runtime)


@pytest.fixture
def session(target: str, probe: Path) -> Iterator[Session]:
    """The probe with free batch sizes."""
    with runtimes.open_session(target, probe, batch=None) as opened:
        yield opened


def feeds_number(seed: int) -> dict[str, Array]:
    """Feeds whose answer no other seed shares; the two batch sizes differ from each other and between seeds."""
    feeds = probe_feeds(images=1 + seed % 3, texts=2 + seed % 4)
    rng = np.random.default_rng(seed)
    return feeds | {
        "image": rng.integers(0, 256, feeds["image"].shape, dtype=np.uint8),
        "ids": rng.integers(0, 16, feeds["ids"].shape, dtype=np.int64),
    }


def assert_answers(got: dict[str, Array], feeds: dict[str, Array], tolerance: float = TOLERANCE) -> None:
    wanted = probe_answer(feeds)
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance, err_msg=name)


def test_an_engine_is_here() -> None:
    assert TARGETS


@each_target
def test_answers_rightly_with_batches_of_different_size(target: str, session: Session) -> None:
    feeds = probe_feeds(images=2, texts=3)
    assert_answers(session.run(feeds), feeds)
    assert str(session.target) == target
    assert session.compute


@each_target
def test_names_its_ports(session: Session) -> None:
    assert {name: str(port) for name, port in session.inputs.items()} == {
        "image": "uint8(?, 8, 8, 3)",
        "ids": "int64(?, 4)",
        "mask": "int64(?, 4)",
    }
    assert {name: str(port) for name, port in session.outputs.items()} == {
        "image_embedding": "float32(?, 4)",
        "text_embedding": "float32(?, 4)",
    }


@each_onnx_target
def test_names_ports_as_the_graph_does_when_nodes_vanish(target: str, tmp_path: Path) -> None:
    """Engines drop an Identity; OpenVINO then gives the port the dropped node's name as well."""
    nodes = [
        helper.make_node("Identity", ["image"], ["z"]),
        helper.make_node("Cast", ["z"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["f"], ["aaa"]),
        helper.make_node("Identity", ["aaa"], ["embedding"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 4])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 4])
    path = save(graph_of(nodes, [image], [embedding]), tmp_path / "identity.onnx")
    with runtimes.open_session(target, path) as session:
        assert (list(session.inputs), list(session.outputs)) == (["image"], ["embedding"])
        answer = session.run({"image": np.array([[1, 2, 3, 4]], np.uint8)})
    np.testing.assert_array_equal(answer["embedding"], np.array([[1, 2, 3, 4]], np.float32))


@each_target
def test_threads_get_their_own_answers(session: Session) -> None:
    start = threading.Barrier(4)

    def work(thread: int) -> None:
        start.wait(timeout=20)
        for turn in range(25):
            feeds = feeds_number(100 * thread + turn)
            assert_answers(session.run(feeds), feeds)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, thread) for thread in range(4)]:
            done.result(timeout=60)


@each_target
def test_answers_belong_to_the_caller(session: Session) -> None:
    feeds = feeds_number(1)
    before = {name: array.copy() for name, array in feeds.items()}
    first = session.run(feeds)
    kept = {name: array.copy() for name, array in first.items()}
    for seed in range(2, 6):
        later = session.run(feeds_number(seed))
        for array in later.values():
            array[:] = -1  # writable, and nobody else's
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
    for name, array in session.run(feeds).items():
        np.testing.assert_array_equal(array, kept[name])
    for name, array in feeds.items():
        np.testing.assert_array_equal(array, before[name])


@each_target
def test_batch_one_is_fixed(target: str, probe: Path) -> None:
    with runtimes.open_session(target, probe) as session:
        assert {name: port.shape[0] for name, port in session.inputs.items()} == {"image": 1, "ids": 1, "mask": 1}
        feeds = probe_feeds(images=1, texts=1)
        assert_answers(session.run(feeds), feeds)
        with pytest.raises(FeedError, match=re.escape("'image' takes uint8(1, 8, 8, 3)")):
            session.run(probe_feeds(images=2, texts=1))


@each_onnx_target
def test_a_batch_without_a_name_is_fixed_too(target: str, tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])
    with runtimes.open_session(target, save(graph_of([relu], [x], [y]), tmp_path / "unnamed.onnx")) as session:
        assert session.inputs["x"].shape == (1, 4)
        assert session.run({"x": np.ones((1, 4), np.float32)})["y"].shape == (1, 4)
        with pytest.raises(FeedError, match=re.escape("takes float32(1, 4)")):
            session.run({"x": np.ones((2, 4), np.float32)})


@each_target
@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("image", np.zeros((1, 8, 8, 3), np.float32), "'image' takes uint8(?, 8, 8, 3) with no empty dimension, but f"),
        ("image", np.zeros((8, 8, 3), np.uint8), "but uint8(8, 8, 3) came"),
        ("image", np.zeros((1, 9, 8, 3), np.uint8), "but uint8(1, 9, 8, 3) came"),
        ("image", np.zeros((0, 8, 8, 3), np.uint8), "but uint8(0, 8, 8, 3) came"),
        ("ids", np.zeros((3, 4), np.int32), "'ids' takes int64(?, 4) with no empty dimension, but int32(3, 4) came"),
        ("ids", np.zeros((3, 4), ">i8"), "but >i8(3, 4) came"),
        ("mask", [[1, 1, 1, 1]], "'mask' takes a numpy array int64(?, 4), but a list came"),
    ],
)
def test_refuses_feeds_that_do_not_fit(session: Session, name: str, array: Any, message: str) -> None:
    with pytest.raises(FeedError, match=re.escape(message)):
        session.run(probe_feeds() | {name: array})
    assert_answers(session.run(probe_feeds()), probe_feeds())  # and is as good as before


@each_target
def test_refuses_feeds_of_other_names(session: Session) -> None:
    feeds = probe_feeds()
    with pytest.raises(FeedError, match=re.escape("takes the inputs ['ids', 'image', 'mask'], but ['ids', 'image']")):
        session.run({name: feeds[name] for name in ("image", "ids")})
    with pytest.raises(FeedError, match=re.escape("but ['extra', 'ids', 'image', 'mask'] came")):
        session.run(feeds | {"extra": feeds["ids"]})


@each_target
def test_takes_arrays_that_are_not_contiguous(session: Session) -> None:
    feeds = probe_feeds()
    wide = {name: np.repeat(array, 2, axis=-1)[..., ::2] for name, array in feeds.items()}
    assert not wide["image"].flags.c_contiguous
    assert_answers(session.run(wide), feeds)


@each_onnx_target
def test_bare_is_the_engine_itself(session: Session) -> None:
    """What benchmarks hold the SDK against gives the same answers, in the engine's own containers."""
    feeds = probe_feeds()
    raw = session.bare(feeds)()  # type: ignore[attr-defined]
    arrays = list(raw.values()) if hasattr(raw, "values") else raw
    for got, want in zip(arrays, probe_answer(feeds).values(), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


@each_target
def test_is_closed_once_and_for_all(target: str, probe: Path) -> None:
    with runtimes.open_session(target, probe, batch=None) as session:
        session.run(probe_feeds())
    with pytest.raises(Unavailable, match=f"this session on {target} is closed; open another"):
        session.run(probe_feeds())
    session.close()  # a second time does no harm


@each_target
def test_closing_under_a_running_thread_gives_an_answer_or_unavailable(target: str, probe: Path) -> None:
    session = runtimes.open_session(target, probe, batch=None)
    running = threading.Event()

    def work() -> int:
        done = 0
        try:
            while True:
                assert_answers(session.run(probe_feeds()), probe_feeds())
                done += 1
                running.set()
        except Unavailable:
            return done

    with ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(work) for _ in range(3)]
        assert running.wait(timeout=20)
        session.close()
        assert sum(thread.result(timeout=20) for thread in threads) > 0


@each_target
def test_f32_is_f32(target: str, probe: Path) -> None:
    if target.startswith("ort:tensorrt"):  # the only one that cannot
        with pytest.raises(Unavailable, match=re.escape("(tf32), not in 'f32'")):
            runtimes.open_session(target, probe, batch=None, precision="f32")
        return
    with runtimes.open_session(target, probe, batch=None, precision="f32") as session:
        assert session.compute == "f32"
        feeds = probe_feeds()
        assert_answers(session.run(feeds), feeds, tolerance=1e-6)


@each_target
@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_a_precision_is_computed_in_or_refused(target: str, probe: Path, precision: str) -> None:
    """Which of them a device has differs; computing silently in another is what no device may do."""
    try:
        with runtimes.open_session(target, probe, batch=None, precision=precision) as session:
            assert precision in session.compute.split("+")
    except Unavailable as error:
        assert re.search(rf"computes .*, not in '{precision}'", str(error))


@each_target
def test_refuses_an_unknown_precision(target: str, probe: Path) -> None:
    with pytest.raises(Unavailable, match=r"comput.*not in 'int3'"):
        runtimes.open_session(target, probe, precision="int3")


@each_onnx_target
def test_reports_integer_arithmetic(target: str, tmp_path: Path) -> None:
    path = save(build("image", "int8"), tmp_path / "int8.onnx")
    with runtimes.open_session(target, path) as session:
        assert session.compute.startswith("int8+")
        assert session.run({"image": np.zeros((1, SIZE, SIZE, 3), np.uint8)})["embedding"].any()
    with runtimes.open_session(target, path, precision="f32") as session:
        assert session.compute == "int8+f32"


@each_onnx_target
def test_does_not_call_stored_int8_integer_arithmetic(target: str, tmp_path: Path) -> None:
    """The text tower keeps its rows in int8 and multiplies nothing in it."""
    with runtimes.open_session(target, save(build("text", "int8"), tmp_path / "text.onnx")) as session:
        assert "int8" not in session.compute
        ids = np.zeros((1, LENGTH), np.int64)
        assert np.isfinite(session.run({"ids": ids, "mask": ids})["embedding"]).all()


@each_target
@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x00" * 64])
def test_refuses_a_garbage_file(target: str, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / f"garbage{ending(target)}"
    path.write_bytes(data)
    with pytest.raises(Unavailable, match=rf"cannot open {re.escape(path.name)}.*: \S"):
        runtimes.open_session(target, path)


@each_onnx_target
def test_refuses_a_broken_graph_without_printing(
    target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The engines' error texts quote the name that is no UTF-8; ONNX Runtime then announces a fallback on stdout."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(probe_graph().SerializeToString().replace(b"Relu", b"R\xe8lu"))
    with pytest.raises(Unavailable, match=r"(cannot open|would refuse) broken\.onnx"):
        runtimes.open_session(target, path)
    assert capfd.readouterr().out == ""


@each_target
def test_refuses_a_missing_file(target: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"there is no graph file .*none\.onnx; make or copy it again"):
        runtimes.open_session(target, tmp_path / "none.onnx")


@each_target
def test_refuses_a_file_of_another_kind(target: str, tmp_path: Path) -> None:
    """So that no name in a bundle can bring a pickle to the runtime that opens those, or the other way round."""
    path = tmp_path / "graph.zip"
    path.write_bytes(doctor.PROBE.read_bytes())
    with pytest.raises(
        Unavailable, match=rf"{target} opens files that end in \{ending(target)}, and .*graph\.zip does"
    ):
        runtimes.open_session(target, path)


@each_target
def test_a_missing_device_names_those_that_exist(target: str, probe: Path) -> None:
    runtime = runtimes.parse_target(target).runtime
    with pytest.raises(Unavailable, match=rf"no device 'tpu\.7'.*{target}"):
        runtimes.open_session(f"{runtime}:tpu.7", probe)
    with pytest.raises(Unavailable, match=rf"no device 'cpu\.3'.*{runtime}:cpu"):
        runtimes.open_session(f"{runtime}:cpu.3", probe)


@each_onnx_target
def test_a_failing_engine_is_unavailable(target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Feeds that fit each port, and yet cannot be added to each other."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [name, 4]) for name in ("a", "b", "sum")]
    model = graph_of([helper.make_node("Add", ["a", "b"], ["sum"])], ports[:2], ports[2:])
    with runtimes.open_session(target, save(model, tmp_path / "add.onnx"), batch=None) as session:
        fits = np.ones((2, 4), np.float32)
        with pytest.raises(Unavailable, match=rf"failed while running on {target}: \S"):
            session.run({"a": fits, "b": np.ones((3, 4), np.float32)})
        np.testing.assert_array_equal(session.run({"a": fits, "b": fits})["sum"], fits + fits)
    assert capfd.readouterr() == ("", "")  # the exception is all that is said


def test_an_unknown_runtime_names_what_is_here() -> None:
    with pytest.raises(Unavailable, match=rf"no runtime 'nope' for target nope:cpu; targets here: .*{TARGETS[0]}"):
        runtimes.open_session("nope:cpu", doctor.PROBE)
    with pytest.raises(Unavailable, match="there is no runtime 'nope'; those that exist: ort, ov, pt, trt"):
        runtimes.devices("nope")


def test_a_module_with_an_underscore_is_no_runtime() -> None:
    assert runtimes.names() == ("ort", "ov", "pt", "trt")
    with pytest.raises(Unavailable, match="there is no runtime '_session'"):
        runtimes.devices("_session")


@pytest.mark.skipif("ort:cuda.0" in TARGETS, reason="CUDA is here, and passes the tests above")
def test_cuda_without_its_package_is_refused_not_replaced() -> None:
    with pytest.raises(Unavailable, match=r"no device 'cuda\.0'; it has: .*; run: pip install 'edge-pupil\[cuda\]'"):
        runtimes.open_session("ort:cuda.0", doctor.PROBE)


# CUDA is not here, so what its silent fallback looks like is shown by stand-ins for the inference session.


def _stand_in(provider: str, cpu_nodes: tuple[str, ...]) -> Any:
    part = SimpleNamespace(
        ep_name="CPUExecutionProvider", get_nodes=lambda: [SimpleNamespace(op_type=kind) for kind in cpu_nodes]
    )
    return SimpleNamespace(get_providers=lambda: [provider], get_provider_graph_assignment_info=lambda: [part])


def test_a_session_that_went_to_another_provider_is_refused() -> None:
    inner = _stand_in("CPUExecutionProvider", ())
    with pytest.raises(
        Unavailable, match=r"asked for CUDAExecutionProvider and went to CPUExecutionProvider: .*cuda\.0"
    ):
        ort._refuse_fallback(inner, "CUDAExecutionProvider", "cuda.0")


def test_multiplying_nodes_left_on_the_cpu_are_refused() -> None:
    inner = _stand_in("CUDAExecutionProvider", ("Shape", "MatMul", "Conv", "Conv"))
    with pytest.raises(
        Unavailable, match=r"CUDAExecutionProvider left 3 multiplying nodes on the CPU \(Conv, MatMul\)"
    ):
        ort._refuse_fallback(inner, "CUDAExecutionProvider", "cuda.0")


def test_shape_nodes_left_on_the_cpu_are_fine() -> None:
    ort._refuse_fallback(_stand_in("CUDAExecutionProvider", ("Shape", "Gather")), "CUDAExecutionProvider", "cuda.0")


def test_a_half_removed_onnxruntime_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing one of onnxruntime and onnxruntime-gpu, when both were installed, leaves an empty package."""
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(Unavailable, match="half installed; run: pip uninstall -y onnxruntime onnxruntime-gpu"):
        runtimes.devices("ort")
