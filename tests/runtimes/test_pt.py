"""What only `pt` can get wrong: programs that are no towers, autocast, and devices."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes import Unavailable, pt
from runtimes.__main__ import PROBE

if os.environ.get("CI") != "true":
    pytest.importorskip("torch")

import torch
from torch import nn


def write(module: nn.Module, path: Path, *example: torch.Tensor) -> Path:
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example)
    torch.export.save(torch.export.export(module.eval(), example, dynamic_shapes=shapes), path)
    return path


class Tower(nn.Module):
    """Two layers with a cast between them: what autocast computes in, the exported program did not see."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.scale = nn.Linear(4, 8), nn.Linear(8, 4), nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.one(x).to(torch.float32).relu()
        return {"embedding": self.two(hidden), "input": x, "weight": self.scale}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(Tower(), tmp_path_factory.mktemp("pt") / "tower.pt2", torch.ones(2, 4))


def test_half_precision_is_near_and_not_the_same(tower: Path) -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    with (
        runtimes.open_session("pt:cpu", tower, batch=None) as plain,
        runtimes.open_session("pt:cpu", tower, batch=None, precision="bf16") as half,
    ):
        assert (plain.compute, half.compute) == ("f32", "bf16")
        one, two = plain.run(feeds)["embedding"], half.run(feeds)["embedding"]
    assert one.dtype == two.dtype == np.float32
    assert 0 < np.abs(one - two).max() < 0.05


def test_what_a_module_hands_out_of_itself_is_a_copy(tower: Path) -> None:
    feeds = {"x": np.ones((2, 4), np.float32)}
    feeds["x"].setflags(write=False)
    with runtimes.open_session("pt:cpu", tower, batch=None) as session:
        first = session.run(feeds)
        for array in first.values():
            array[:] = -7
        again = session.run(feeds)
    np.testing.assert_array_equal(again["weight"], [2, 3])
    np.testing.assert_array_equal(again["input"], feeds["x"])


def test_the_thread_that_asked_keeps_its_gradients(tower: Path) -> None:
    with runtimes.open_session("pt:cpu", tower, precision="bf16") as session:
        session.run({"x": np.ones((1, 4), np.float32)})
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Nested(nn.Module):
    def forward(self, x: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"embedding": x[0] + x[1]}


def test_a_program_that_is_no_tower_is_refused(tmp_path: Path) -> None:
    path = write(Plain(), tmp_path / "plain.pt2", torch.ones(2, 4))
    with pytest.raises(Unavailable, match="the program must take tensors and return a dict of tensors by name"):
        runtimes.open_session("pt:cpu", path)
    torch.export.save(torch.export.export(Nested(), ([torch.ones(2), torch.ones(2)],)), tmp_path / "nested.pt2")
    with pytest.raises(Unavailable, match="must take tensors and return a dict"):
        runtimes.open_session("pt:cpu", tmp_path / "nested.pt2")


def test_a_program_that_fails_while_running_is_unavailable(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sum": a + b}

    path = write(Sum(), tmp_path / "sum.pt2", torch.ones(2, 4), torch.ones(2, 4))
    fits = np.ones((2, 4), np.float32)
    with runtimes.open_session("pt:cpu", path, batch=None) as session:
        with pytest.raises(Unavailable, match=r"PyTorch failed while running on pt:cpu: \S"):
            session.run({"a": fits, "b": np.ones((3, 4), np.float32)})
        np.testing.assert_array_equal(session.run({"a": fits, "b": fits})["sum"], fits + fits)


def test_a_program_cut_short_is_refused(tower: Path, tmp_path: Path) -> None:
    data = tower.read_bytes()
    (tmp_path / "short.pt2").write_bytes(data[: len(data) // 2])
    with pytest.raises(Unavailable, match=r"PyTorch cannot open short\.pt2 on 'cpu': \S"):
        runtimes.open_session("pt:cpu", tmp_path / "short.pt2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here, and passes the conformance test")
def test_cuda_that_is_not_here_is_refused_with_what_to_do(tower: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"no device 'cuda\.0'; it has: pt:cpu; check the driver \(nvidia-smi\), and install"
    ):
        runtimes.open_session("pt:cuda.0", tower)


def test_without_torch_the_extra_is_named(tower: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (pt.devices, lambda: runtimes.open_session("pt:cpu", tower), lambda: pt.write_probe(tower)):
        with pytest.raises(
            Unavailable, match=r"PyTorch does not import \(.*\); run: pip install 'edge-pupil\[compress\]'"
        ):
            call()


def test_a_bundle_file_never_reaches_it() -> None:
    with pytest.raises(Unavailable, match=r"pt:cpu opens files that end in \.pt2, and .*probe\.onnx does not"):
        runtimes.open_session("pt:cpu", PROBE)
    assert "pt" not in {target.runtime for target in runtimes.targets()}
