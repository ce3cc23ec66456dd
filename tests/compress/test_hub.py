"""Where a checkpoint lies."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from compress.hub import locate
from runtimes import RecipeError

ROOT = Path(__file__).parents[2]


def test_no_folder_and_no_id() -> None:
    with pytest.raises(
        RecipeError, match=r"'/no/such/folder' is no folder here, and the hub did not give it .*HFValidat"
    ):
        locate("/no/such/folder")


def test_the_hub_without_a_network(tmp_path: Path) -> None:
    """As a user sees it: before any work, in one line, and nothing is left."""
    command = [
        sys.executable,
        "-m",
        "compress.distill",
        "quantize",
        "--set",
        "teach.source=openai/clip-vit-base-patch32",
    ]
    done = subprocess.run(
        [*command, "--set", f"data.root={_shop(tmp_path / 'shop')}", "--out", str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "teach.source: 'openai/clip-vit-base-patch32' is no folder here, and the hub did not give" in done.stderr
    assert "check the id and the network, or download it elsewhere and give the folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLIP = {"config.json": b'{"model_type": "clip"}', "README.md": b"a card", "sub/model.safetensors": b"another's"}
LOCATE = "import sys; from compress.hub import locate; print(locate(sys.argv[1])[0])"


class Hub(ThreadingHTTPServer):
    """A hub of one repository, me/clip; `sent` are the files that it was asked to send."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files, self.sent = files, list[str]()


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, files = self.path.partition("?")[0], self.server.files
        name = path.removeprefix(f"/me/clip/resolve/{COMMIT}/")
        if path == "/api/models/me/clip/revision/main":
            data = json.dumps({"id": "me/clip", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
        elif path == f"/api/models/me/clip/tree/{COMMIT}":
            rows = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files.items()]
            data = json.dumps(rows)
        elif name in files:
            data = files[name].decode()
            self.server.sent += [name] if self.command == "GET" else []
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data.encode()).hexdigest()}"')
        self.send_header("Content-Length", str(len(data.encode())))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data.encode())

    def log_message(self, *_: object) -> None:
        """Nothing on the error output of the tests."""


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


def asked(hub: Hub, cache: Path) -> subprocess.CompletedProcess[str]:
    """`locate`, in a process of its own: where the hub is and where downloads go is read once."""
    place = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", LOCATE, "me/clip"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0", **place},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("weights", "taken"),
    [
        (("model.safetensors", "pytorch_model.bin", "tf_model.h5"), "model.safetensors"),
        (("pytorch_model.bin", "flax_model.msgpack"), "pytorch_model.bin"),
    ],
)
def test_one_format_of_the_weights_is_downloaded(weights: tuple[str, ...], taken: str, tmp_path: Path) -> None:
    """They are gigabytes each; and a pickle where safetensors lie is not wanted."""
    with serving({**CLIP, **dict.fromkeys(weights, b"weights")}) as hub:
        done = asked(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(hub.sent) == sorted(["README.md", "config.json", taken]), "each once"
    assert {path.name for path in Path(done.stdout.strip()).iterdir()} == {"README.md", "config.json", taken}


def test_a_repository_without_weights(tmp_path: Path) -> None:
    with serving(CLIP) as hub:
        done = asked(hub, tmp_path)
    assert "has no weights; wanted model*.safetensors or pytorch_model*.bin: copy them there too" in done.stderr
    assert sorted(hub.sent) == ["README.md", "config.json"]


def _shop(root: Path) -> Path:
    from tests.photos import folder_shop

    return folder_shop(root, {"apple": 20, "pear": 20})
