"""WebDataset shards as a data set: what is read, once, by whom, and what is refused."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compress import unpack as unpacking
from compress.data import Corpus, open_dataset
from compress.data.shards import Shards
from compress.draft import DatasetSpec
from compress.recipe import Recipe
from compress.samples import Part, Sample
from compress.steps import check_steps, run_steps
from compress.unpack import fetch, join
from runtimes import RecipeError, Unavailable
from tests.photos import ROOT
from tests.streams import jpeg, raw_shard, shard, shards

GOOD = (("a.jpg", jpeg(1)), ("a.cls", b"apple"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that are opened."""
    opened: list[str] = []
    real = Shards.read

    def read_one(self: Shards, part: Part) -> Iterator[Sample]:
        opened.append(Path(part.name).name)
        return real(self, part)

    monkeypatch.setattr(Shards, "read", read_one)
    return opened


def opened(root: object, cache: Path, **fields: object) -> Any:
    return open_dataset("shards", {"root": str(root), "cache": str(cache / "cache"), **fields})


def corpus(root: object, cache: Path, **fields: object) -> Corpus:
    loaded: Corpus = opened(root, cache, **fields).load()
    return loaded


def seen(loaded: Corpus) -> set[bytes]:
    return {path.read_bytes() for split in (loaded.train, loaded.val, loaded.test) for path in split.images}


def refusal(folder: Path, members: Any, **fields: object) -> str:
    raw_shard(folder / "bad.tar", members)
    with pytest.raises(RecipeError) as refused:
        corpus(folder / "bad.tar", folder, **fields)
    return str(refused.value)


def test_every_sample_becomes_a_photo_with_its_label(tmp_path: Path) -> None:
    dataset = opened(shards(tmp_path), tmp_path)
    dataset.check()
    assert dataset.count() == 0, "nothing is read by a check"
    assert not (tmp_path / "cache").exists()
    dataset.verify(tmp_path / "out")
    loaded = dataset.load()
    assert loaded.name == "shop"
    assert [(label.name, label.group) for label in loaded.labels] == [(n, "fruit") for n in ("apple", "pear", "plum")]
    assert sum(len(split.images) for split in (loaded.train, loaded.val, loaded.test)) == 48
    assert seen(loaded) == {jpeg(at) for at in range(48)}
    path, label = loaded.train.images[5], loaded.train.label[5]
    (at,) = [at for at in range(48) if jpeg(at) == path.read_bytes()]
    assert label == at % 3
    assert opened(shards(tmp_path), tmp_path).fingerprint() == loaded.fingerprint
    dataset.check()


def test_a_run_begins_with_shards(tmp_path: Path) -> None:
    """A run without steps: the data is unpacked and looked at, and a second one reads nothing again."""
    fields = {"root": shards(tmp_path), "cache": str(tmp_path / "cache")}
    recipe = Recipe("shop", "", 0, 1, DatasetSpec("shards", fields), ())
    check_steps(recipe)
    run_steps(recipe, tmp_path / "out")
    photos = sorted((tmp_path / "cache").rglob("*.jpg"))
    written = [path.stat().st_mtime_ns for path in photos]
    assert len(photos) == 48
    check_steps(recipe)
    run_steps(recipe, tmp_path / "out", resume=True)
    assert [path.stat().st_mtime_ns for path in photos] == written
    assert opened(fields["root"], tmp_path).count() == 48, "known now, so that the disk it takes is asked for"


def test_a_file_that_two_patterns_name_is_read_once(tmp_path: Path) -> None:
    shards(tmp_path)
    assert len(opened(f"{tmp_path}/{{shop-*,*-000}}.tar", tmp_path).parts()) == 4


def test_a_split_in_the_name_or_the_json_is_kept(tmp_path: Path) -> None:
    for name, first, count in (("train", 0, 20), ("val", 20, 6), ("test", 26, 5)):
        shard(tmp_path / f"shop-{name}-0.tar", first, count)
    loaded = corpus(tmp_path / "shop-*.tar", tmp_path)
    assert [len(split.images) for split in (loaded.train, loaded.val, loaded.test)] == [20, 6, 5]
    about = [b'{"label": "pear", "split": "validation"}', b'{"label": "plum", "split": "test"}']
    rows = [(f"{at}.jpg", jpeg(at)) for at in range(12)] + [(f"{at}.json", about[at % 2]) for at in range(12)]
    rows += [("z.jpg", jpeg(20)), ("z.txt", b"fig")]
    raw_shard(tmp_path / "many.tar", sorted(rows))
    loaded = corpus(tmp_path / "many.tar", tmp_path)
    assert [len(split.images) for split in (loaded.train, loaded.val, loaded.test)] == [1, 6, 6]
    assert [label.name for label in loaded.labels] == ["fig", "pear", "plum"]


def test_numbers_are_named_by_a_file(tmp_path: Path) -> None:
    rows = [
        (f"{at:02d}.{suffix}", data)
        for at in range(24)
        for suffix, data in (("jpg", jpeg(at)), ("cls", b"%d" % (at % 2)))
    ]
    raw_shard(tmp_path / "bad.tar", rows)
    (tmp_path / "names.txt").write_text("apple\npear\n", encoding="utf-8")
    loaded = corpus(tmp_path / "bad.tar", tmp_path, names=str(tmp_path / "names.txt"))
    assert [label.name for label in loaded.labels] == ["apple", "pear"]
    assert "the labels are numbers ('0'), and a student is taught by words; give a text file" in refusal(tmp_path, rows)
    (tmp_path / "names.txt").write_text("apple\n", encoding="utf-8")
    told = refusal(tmp_path, rows, names=str(tmp_path / "names.txt"))
    assert "its label is 1, and data.names has 1 names" in told


def test_what_was_read_is_not_read_again(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off in the third shard: the first two stay, the third begins again."""
    root, finish, count = shards(tmp_path), unpacking.look, 0

    def look(sample: Sample) -> tuple[str, str]:
        nonlocal count
        count += 1
        if count == 30:
            raise KeyboardInterrupt
        return finish(sample)

    monkeypatch.setattr(unpacking, "look", look)
    with pytest.raises(KeyboardInterrupt):
        corpus(root, tmp_path)
    assert read == ["shop-000.tar", "shop-001.tar", "shop-002.tar"]
    read.clear()
    loaded = corpus(root, tmp_path)
    assert read == ["shop-002.tar", "shop-003.tar"]
    assert len(seen(loaded)) == 48
    read.clear()
    assert corpus(root, tmp_path).fingerprint == loaded.fingerprint
    assert read == []
    shard(tmp_path / "shop-001.tar", 100, 12)  # another content under the same name
    assert jpeg(100) in seen(corpus(root, tmp_path))
    assert read == ["shop-001.tar"]


def test_a_process_that_was_killed_is_gone_on_with(tmp_path: Path, read: list[str]) -> None:
    root = shards(tmp_path)
    code = f"""
import os, signal
from compress import unpack
from compress.data import open_dataset
finish, done = unpack._unpack, []
def kill(*arguments):
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(finish(*arguments))
unpack._unpack = kill
open_dataset("shards", {{"root": {root!r}, "cache": {str(tmp_path / "cache")!r}}}).load()
"""
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -9
    assert len(seen(corpus(root, tmp_path))) == 48
    assert read == ["shop-002.tar", "shop-003.tar"]


def test_corrupt_samples_are_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        (f"{at:02d}.{suffix}", data)
        for at in range(24)
        for suffix, data in (("jpg", jpeg(at)), ("cls", b"ab"[at % 2 :][:1]))
    ]
    rows[20] = ("10.jpg", jpeg(10)[:-300])
    rows[41] = ("20.cls", b" ")
    raw_shard(tmp_path / "bad.tar", rows)
    loaded = corpus(tmp_path / "bad.tar", tmp_path, max_corrupt=2)
    assert seen(loaded) == {jpeg(at) for at in range(24) if at not in (10, 20)}
    assert "2 corrupt samples were left out; data.max_corrupt allows 2" in caplog.text
    told = refusal(tmp_path, rows, max_corrupt=1)
    assert "2 samples cannot be used, and data.max_corrupt allows 1: " in told
    assert "bad.tar, '10': wanted a whole JPEG, got one cut after" in told
    assert "'20': it has no label" in told
    with pytest.raises(RecipeError, match=r"data\.max_corrupt must be 0 or more, got -1"):
        opened("x.tar", tmp_path, max_corrupt=-1)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([("../x.jpg", jpeg(1)), ("../x.cls", b"a")], "'../x': its name leads out of the shard"),
        ([("/etc/x.jpg", jpeg(1)), ("/etc/x.cls", b"a")], "'/etc/x': its name leads out of the shard"),
        ([("a.jpg", jpeg(1))], "'a': it has no label"),
        ([("a.cls", b"apple")], "'a': wanted one image (jpg, jpeg, png, webp, bmp), got 0"),
        ([("a.pyd", b"\x80\x04."), ("a.cls", b"apple")], "got 0"),
        ([*GOOD, ("a.png", jpeg(2))], "got 2"),
        ([("a.jpg", b"\x80\x04."), ("a.cls", b"apple")], "wanted a JPEG, PNG, WebP"),
        ([("a.jpg", jpeg(1)), ("a.cls", b"\xff\xfe")], "its cls, txt or json is no UTF-8 text, or no JSON object"),
        ([("a.jpg", jpeg(1)), ("a.json", b"[1]")], "its cls, txt or json is no UTF-8 text, or no JSON object"),
        ([("a.jpg", jpeg(1)), ("a.json", b"[" * 500_000)], "its cls, txt or json is no UTF-8 text, or no JSON object"),
        ([("a.jpg", jpeg(1)), ("a.txt", b"x" * 2**21)], "its txt is longer than 1048576 bytes"),
        ([("a.jpg", jpeg(1)), ("a.cls", b"x" * 201)], "its label is not one line of at most 200 characters"),
        ([("a.jpg", jpeg(1)), ("a.json", b'{"label": "a", "text": "\\u0000"}')], "its text is not at most 10000"),
        ([("a.jpg", jpeg(1)), ("a.json", b'{"label": "a", "split": "x"}')], "its split is 'x', not train, val or test"),
        ([*GOOD, ("a.jpg", jpeg(2))], "a file of that name comes twice"),
    ],
)
def test_samples_that_cannot_be_used(tmp_path: Path, members: Any, why: str) -> None:
    told = refusal(tmp_path, members)
    assert "1 samples cannot be used" in told
    assert why in told
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["cache"], "nothing was written elsewhere"


def test_links_and_pickles_are_not_read(tmp_path: Path) -> None:
    rows = [
        (f"{at:02d}.{suffix}", data)
        for at in range(24)
        for suffix, data in (("jpg", jpeg(at)), ("cls", b"ab"[at % 2 :][:1]))
    ]
    raw_shard(tmp_path / "shop.tar", rows)
    with tarfile.open(tmp_path / "shop.tar", "a") as tar:
        link = tarfile.TarInfo("30.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert len(seen(corpus(tmp_path / "shop.tar", tmp_path))) == 24


def test_a_shard_that_is_cut_or_none_is_refused(tmp_path: Path) -> None:
    whole = shard(tmp_path / "shop.tar", 0, 12).read_bytes()
    for size in (len(whole) // 2, len(whole) // 2 // 512 * 512, 100, 0):
        (tmp_path / "shop.tar").write_bytes(whole[:size])
        with pytest.raises(RecipeError, match=r"shop\.tar is no whole \.tar file \(.*\); copy it again, uncompressed"):
            corpus(tmp_path / "shop.tar", tmp_path)
    (tmp_path / "shop.tar").write_bytes(whole[:1024] + b"?" * 512 + whole[1536:])
    with pytest.raises(RecipeError, match=r"is no whole \.tar file"):
        corpus(tmp_path / "shop.tar", tmp_path)
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    (tmp_path / "shop.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(RecipeError, match=r"no whole \.tar file \(a header of 8589934592 bytes\)"):
        corpus(tmp_path / "shop.tar", tmp_path)


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("", 'the data set shards wants .tar files; add --set data.root="shop-{000..009}.tar"'),
        ("none-{0..2}.tar", "data.root: no shard matches 'none-0.tar'; give .tar files that are there"),
        ("pipe:cat x.tar", "got 'pipe:cat x.tar'; pipe: is not read"),
        (
            "http://example.org/x.tar",
            "wanted files, or addresses that begin with https:// (or http:// on this machine)",
        ),
        ("file:///x.tar", "file: is not read"),
        ("s3://x/y.tar", "s3: is not read"),
    ],
)
def test_addresses_that_are_refused_before_work(tmp_path: Path, root: str, told: str) -> None:
    with pytest.raises(RecipeError) as refused:
        opened(root, tmp_path).check()
    assert told in str(refused.value)


def test_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = r"needs the package webdataset, which is not installed; run: pip install 'edge-pupil\[data\]'"
    with pytest.raises(Unavailable, match=told):
        opened("x.tar", tmp_path).check()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """http on this machine; /away/ leads to another one."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def do_GET(self) -> None:
            if self.path.startswith("/away/"):
                self.send_response(302)
                self.send_header("Location", "http://example.org/x.tar")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_shards_behind_an_address(
    tmp_path: Path, server: str, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "PAUSE", 0.0)
    shards(tmp_path)
    root = f"{server}/shop-{{000..003}}.tar"
    (tmp_path / "shop-002.tar").rename(tmp_path / "away.tar")
    with pytest.raises(Unavailable, match=r"cannot read http://127.*/shop-002\.tar: the server answered 404"):
        corpus(root, tmp_path)
    (tmp_path / "away.tar").rename(tmp_path / "shop-002.tar")
    assert len(seen(corpus(root, tmp_path))) == 48
    assert read.count("shop-000.tar") == read.count("shop-001.tar") == 1
    whole = (tmp_path / "shop-002.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:6000])
    with pytest.raises(Unavailable, match=r"cannot read .*cut\.tar: .*; the same command goes on with it"):
        corpus(f"{server}/cut.tar", tmp_path)
    with pytest.raises(RecipeError, match=r"got 'http://example\.org/x\.tar'; http: is not read"):
        corpus(f"{server}/away/x.tar", tmp_path)


def test_ranks_cover_all_shards_once(tmp_path: Path, read: list[str]) -> None:
    root = shards(tmp_path, 7, 3)
    for world in (1, 2, 3, 5):
        shares = []
        for rank in range(world):
            read.clear()
            dataset = opened(root, tmp_path)
            fetch(dataset.parts(), dataset.read, tmp_path / f"cache-{world}", 0, (rank, world))
            shares.append(list(read))
        assert sorted(name for share in shares for name in share) == [f"shop-{at:03d}.tar" for at in range(7)]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        joined = join(dataset.parts(), tmp_path / f"cache-{world}", 0).read_text(encoding="utf-8")
        assert len(joined.splitlines()) == 22
        assert joined == join(dataset.parts(), tmp_path / "cache-1", 0).read_text(encoding="utf-8")


def test_corrupt_samples_of_all_ranks_count(tmp_path: Path) -> None:
    for at in range(2):
        raw_shard(tmp_path / f"shop-{at}.tar", (*GOOD, ("b.jpg", b"no photo"), ("b.cls", b"pear")))
    dataset = opened(f"{tmp_path}/shop-*.tar", tmp_path)
    for rank in range(2):
        fetch(dataset.parts(), dataset.read, tmp_path / f"own-{rank}", 1, (rank, 2))  # neither sees the other's
    (tmp_path / "own-1/00001").rename(tmp_path / "own-0/00001")
    with pytest.raises(RecipeError, match=r"2 samples cannot be used, and data\.max_corrupt allows 1: .*shop-0\.tar"):
        join(dataset.parts(), tmp_path / "own-0", 1)


def test_damage_on_the_disk_is_told_or_mended(tmp_path: Path, read: list[str]) -> None:
    dataset = opened(shards(tmp_path), tmp_path)
    dataset.verify(tmp_path / "out")
    photo = dataset.load().train.images[0]
    rows = photo.parent / "rows.csv"
    rows.write_text(rows.read_text(encoding="utf-8").replace("apple", "pear"), encoding="utf-8")
    read.clear()
    assert [label.name for label in corpus(shards(tmp_path), tmp_path).labels] == ["apple", "pear", "plum"]
    assert len(read) == 4, "the shards were written again too"
    photo.write_bytes(jpeg(99))
    with pytest.raises(RecipeError, match=r"\.jpg is damaged: it is not what was unpacked; remove .* and run again"):
        opened(f"{tmp_path}/shop-{{000..003}}.tar", tmp_path).verify(tmp_path / "out")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"data\.cache"):
        open_dataset("shards", {"root": str(tmp_path / "shop-000.tar"), "cache": str(tmp_path / "file")}).load()
