"""Fetching over real HTTP from a server in this process: cut, damaged, killed, offline."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from compress.data.__main__ import main, source_of
from compress.fetch import ATTEMPTS, MARKER, Source, blob_sha, digest, fetch
from compress.layouts import read_listing
from runtimes import RecipeError, Unavailable
from tests.photos import ROOT, grocery_shop

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = Source("shops/corner", COMMIT, "dataset")


class GitHub(ThreadingHTTPServer):
    """A repository as GitHub serves it. `faults`: path -> how often it answers wrongly first, and how."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = files
        self.faults: dict[str, tuple[int, str]] = {}
        self.asked: Counter[str] = Counter()
        self.commit, self.repository, self.seconds = COMMIT, "shops/corner", 0.0
        self.listing = self.tree()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def tree(self) -> bytes:
        blobs = [
            {"path": path, "mode": "100644", "type": "blob", "sha": blob_sha(data), "size": len(data)}
            for path, data in self.files.items()
        ]
        folder = {"path": "dataset", "mode": "040000", "type": "tree", "sha": "0" * 40}
        link = {"path": "dataset/link", "mode": "120000", "type": "blob", "sha": "0" * 40, "size": 3}
        return json.dumps({"sha": "0" * 40, "tree": [folder, link, *blobs], "truncated": False}).encode()


class _Answer(BaseHTTPRequestHandler):
    server: GitHub

    def do_GET(self) -> None:
        hub = self.server
        time.sleep(hub.seconds)
        path = unquote(self.path.removeprefix(f"/{hub.repository}/{hub.commit}/"))
        if self.path == f"/repos/{hub.repository}/git/trees/{hub.commit}?recursive=1":
            path, data = "tree", hub.listing
        else:
            data = hub.files.get(path, b"")
        hub.asked[path] += 1
        times, how = hub.faults.get(path, (0, ""))
        fault = how if hub.asked[path] <= times else ""
        if not data or fault.isdecimal():
            self.send_error(int(fault or 404))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) + (fault == "longer")))
        self.end_headers()
        wrong = {"cut": data[: len(data) // 2], "damaged": data[:-1] + bytes([data[-1] ^ 1]), "longer": data + b"x"}
        self.wfile.write(wrong.get(fault, data))

    def log_message(self, *_: object) -> None:
        """Nothing on the error output of the tests."""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return grocery_shop(tmp_path / "upstream", {"train": 3, "val": 1, "test": 1})


@pytest.fixture
def hub(shop: Path) -> Iterator[GitHub]:
    files = {
        f"dataset/{file.relative_to(shop).as_posix()}": file.read_bytes() for file in shop.rglob("*") if file.is_file()
    }
    files |= {"LICENSE": b"MIT", "README.md": b"not fetched", "dataset/with space #1.txt": b"quoted"}
    server = GitHub(files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetched(hub: GitHub, target: Path, source: Source = SOURCE) -> int:
    return fetch(source, target, hub.url, hub.url, pause=0.01)


def wanted(hub: GitHub) -> dict[str, bytes]:
    return {path.removeprefix("dataset/"): data for path, data in hub.files.items() if path != "README.md"}


def there(target: Path) -> dict[str, bytes]:
    """Path in the folder -> bytes. A fetch may be running: a .part that has just got its name is looked up again."""
    while True:
        files = (path for path in target.rglob("*") if path.is_file() and path.name != MARKER)
        try:
            return {path.relative_to(target).as_posix(): path.read_bytes() for path in files}
        except FileNotFoundError:
            continue


def test_a_fetch_is_the_folder_at_the_top_and_a_second_one_asks_for_nothing(hub: GitHub, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    assert fetched(hub, target) == len(wanted(hub))
    assert there(target) == wanted(hub)
    assert len(read_listing(str(target)).images) == 15
    hub.asked.clear()
    fetched(hub, target)
    assert hub.asked == {"tree": 1}


@pytest.mark.parametrize("fault", ["cut", "damaged", "longer", "503", "429"])
def test_what_may_pass_is_tried_again(hub: GitHub, tmp_path: Path, fault: str) -> None:
    photo = "dataset/train/Fruit/Royal-Gala/Royal-Gala_000.jpg"
    hub.faults = {photo: (2, fault)}
    fetched(hub, tmp_path / "made")
    assert hub.asked[photo] == 3
    assert there(tmp_path / "made") == wanted(hub)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "cut",
            r"cannot fetch http://.*/val\.txt: wanted \d+ bytes of git SHA-1 .*, got \d+ bytes of",
        ),
        ("damaged", r"wanted \d+ bytes of git SHA-1 [0-9a-f]{40}, got \d+ bytes of [0-9a-f]{40}; it needs a network"),
        ("404", r"the server answered 404 Not Found; .* What was fetched is kept: the same command goes on"),
        ("503", r"the server answered 503 Service Unavailable"),
    ],
)
def test_what_does_not_pass_is_one_error_and_leaves_no_half_file(
    hub: GitHub, tmp_path: Path, fault: str, said: str
) -> None:
    hub.faults = {"dataset/val.txt": (99, fault)}
    with pytest.raises(Unavailable, match=said):
        fetched(hub, tmp_path / "made")
    assert hub.asked["dataset/val.txt"] == (1 if fault == "404" else ATTEMPTS)
    left = there(tmp_path / "made")
    assert "val.txt" not in left
    assert left.items() <= wanted(hub).items()
    hub.faults = {}
    hub.asked.clear()
    fetched(hub, tmp_path / "made")
    assert there(tmp_path / "made") == wanted(hub)
    assert not {path.removeprefix("dataset/") for path in hub.asked} & set(left), "what was there is not asked for"


def test_a_file_that_was_damaged_here_is_fetched_again(hub: GitHub, tmp_path: Path) -> None:
    fetched(hub, tmp_path / "made")
    (tmp_path / "made" / "val.txt").write_bytes(b"x")
    fetched(hub, tmp_path / "made")
    assert there(tmp_path / "made") == wanted(hub)


def test_a_killed_fetch_goes_on(hub: GitHub, tmp_path: Path) -> None:
    """The command itself, kill -9 in the middle; the real commit, whose digests these small files do not have."""
    real = source_of("grocery")
    hub.commit, hub.repository, hub.seconds = real.commit, real.repository, 0.15
    target = tmp_path / "made"
    command = [
        sys.executable,
        "-m",
        "compress.data",
        "grocery",
        "--fetch",
        str(target),
        "--api",
        hub.url,
        "--raw",
        hub.url,
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(there(target)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    whole = {path: data for path, data in there(target).items() if not path.endswith(".part")}
    assert 0 < len(whole) < len(wanted(hub))
    assert whole.items() <= wanted(hub).items()
    hub.asked.clear()
    hub.seconds = 0.0
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2, "all is fetched, and is not the real data set"
    assert "classes.csv: wanted the files of digest 33455fb39c34" in done.stderr
    assert there(target) == wanted(hub), "no .part is left either"
    assert not {path.removeprefix("dataset/") for path in hub.asked} & set(whole)


def test_files_are_held_against_what_is_known_of_them(hub: GitHub, shop: Path, tmp_path: Path) -> None:
    photos = [path.relative_to(shop).as_posix() for path in (shop / "train").rglob("*.jpg")]
    known = {"train/*.jpg": digest(shop, photos), "classes.csv": digest(shop, ["classes.csv"])}
    fetched(hub, tmp_path / "good", Source("shops/corner", COMMIT, "dataset", known))
    with pytest.raises(RecipeError, match=r"train/\*\.jpg: wanted the files of digest 0+, got [0-9a-f]{64}; report it"):
        fetched(hub, tmp_path / "bad", Source("shops/corner", COMMIT, "dataset", {"train/*.jpg": "0" * 64}))


def test_the_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    # printf '%s  a\n' "$(sha256sum < /dev/null | cut -d' ' -f1)" | sha256sum
    assert digest(tmp_path, ["a"]) == "fba1930570cf2d33a2a05ff43a4fea532382611f43876988fc9c31fd9ce102d1"
    assert blob_sha(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "git's name of the empty file"


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (b"<html>", r"wanted a tree listing of GitHub, got something else \(JSONDecodeError"),
        (b'{"message": "Not Found"}', r"got something else \(KeyError\('tree'\)\); try again later"),
        (b'{"tree": [], "truncated": false}', r"wanted all files of dataset/, got a listing that is cut or has none"),
        (
            b'{"tree": [{"path": "dataset/a", "mode": "100644", "sha": "0", "size": 1}], "truncated": true}',
            "cut or has",
        ),
    ],
)
def test_a_listing_that_is_none(hub: GitHub, tmp_path: Path, listing: bytes, said: str) -> None:
    hub.listing = listing
    with pytest.raises(Unavailable, match=said):
        fetched(hub, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_listing_without_end(hub: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.fetch.MAX_LISTING", 10)
    with pytest.raises(Unavailable, match="wanted at most 10 bytes, got 11 bytes"):
        fetched(hub, tmp_path / "made")


@pytest.mark.parametrize("size", ["67108865", "1000000000000", "-2"])
def test_a_listing_of_files_without_end(hub: GitHub, tmp_path: Path, size: str) -> None:
    blob = '{"path": "dataset/a", "mode": "100644", "sha": "0", "size": %s}'
    hub.listing = f'{{"tree": [{blob % size}], "truncated": false}}'.encode()
    said = f"wanted files of at most 67108864 bytes, got 'dataset/a' of {size}; that is no copy of shops/corner: fetch"
    with pytest.raises(Unavailable, match=said):
        fetched(hub, tmp_path / "made")
    hub.listing = f'{{"tree": [{blob % "1e999"}], "truncated": false}}'.encode()
    with pytest.raises(Unavailable, match=r"got something else \(OverflowError"):
        fetched(hub, tmp_path / "made")
    assert set(hub.asked) == {"tree"}
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("path", ["dataset/../../evil", "dataset//etc/evil", "dataset/a/../../../evil"])
def test_a_listing_that_climbs_out(hub: GitHub, tmp_path: Path, path: str) -> None:
    hub.files[path] = b"x"
    hub.listing = hub.tree()
    with pytest.raises(RecipeError, match="wanted a path below"):
        fetched(hub, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_nothing_of_the_users_is_overwritten(hub: GitHub, tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("mine", encoding="utf-8")
    for target in (tmp_path, tmp_path / "classes.csv"):
        with pytest.raises(RecipeError, match=r"exists and was not made by a fetch of shops/corner at 0123456; choose"):
            fetched(hub, target)
    assert (tmp_path / "classes.csv").read_text(encoding="utf-8") == "mine"
    assert not hub.asked
    fetched(hub, tmp_path / "made")
    with pytest.raises(RecipeError, match="was not made by a fetch of shops/corner at 9999999"):
        fetched(hub, tmp_path / "made", Source("shops/corner", "9" * 40, "dataset"))


def test_a_folder_that_cannot_be_written(hub: GitHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"cannot read or write .*file/made: Not a directory; see to that, then the same"
    ):
        fetched(hub, tmp_path / "file" / "made")


def test_a_folder_that_cannot_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grocery", "--fetch", str(tmp_path / ("x" * 300))]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot read or write {tmp_path}/xxx")
    assert error.endswith("File name too long; see to that, then the same command goes on where this one stopped\n")
    assert main(["grocery", "--fetch", "~nobody-of-this-name/x"]) == 2
    assert "--fetch ~nobody-of-this-name/x is no path of a folder (Could not" in capsys.readouterr().err


def test_offline_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.fetch.time.sleep", lambda seconds: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"  # bound, and nobody listens
        assert main(["grocery", "--fetch", str(tmp_path / "made"), "--api", nobody, "--raw", nobody]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith(f"error: cannot fetch {nobody}/repos/marcusklasson/GroceryStoreDataset/git/trees/fc80ba9")
    assert "Connection refused" in errors
    assert "it needs a network that reaches GitHub" in errors
    assert not (tmp_path / "made").exists()


def test_names_and_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grocry", "--fetch", str(tmp_path)]) == 2
    assert (
        "there is no data set 'grocry' to fetch (did you mean 'grocery'?); there is: grocery" in capsys.readouterr().err
    )
    for option in ("--api", "--raw"):
        for address in ("github.local", "http://github.local", "http://127.0.0.1.github.local"):
            assert main(["grocery", "--fetch", str(tmp_path / "made"), option, address]) == 2
            assert capsys.readouterr().err == (
                f"error: argument {option}: wanted an address that begins with https:// (or http:// on this machine), "
                f"got {address!r}; run: python -m compress.data --help\n"
            )
    assert main(["grocery"]) == 2
    assert "required: --fetch; run: python -m compress.data --help" in capsys.readouterr().err


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"cannot fetch http://\[x/repos/.*: no answer \(ValueError\('Invalid IPv6 URL"
    ):
        fetch(SOURCE, tmp_path / "made", "http://[x", pause=0.0)


def test_the_command_to_its_end(
    hub: GitHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress.layouts.grocery.SOURCE", SOURCE)
    made = tmp_path / "made"
    assert main(["grocery", "--fetch", str(made), "--api", hub.url, "--raw", hub.url]) == 0
    printed = capsys.readouterr().out
    assert f"grocery: {len(wanted(hub))} files, all checked, in {made}" in printed
    assert f"--set data.root={made}" in printed


def test_without_the_makers_packages(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['rich'] = None; from compress.data.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "grocery", "--fetch", str(tmp_path / "made")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the maker's packages are not all here" in done.stderr
    assert "run: pip install 'edge-pupil[compress" in done.stderr


def test_interrupted(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compress.data.__main__.fetch", interrupt)
    assert main(["grocery", "--fetch", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on where this one stopped\n"
