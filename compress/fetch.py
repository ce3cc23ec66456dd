"""Files of a public GitHub repository at one pinned commit, into a folder: every file is hashed before it appears.

The commit's tree listing (one request) says which files there are, with their git blob SHA-1; each is then fetched by
itself, written beside its place and renamed. So whatever stops a fetch, the same command goes on where it was.
"""

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

from compress.layouts import inside
from runtimes import RecipeError, Unavailable

API = "https://api.github.com"
RAW = "https://raw.githubusercontent.com"
MARKER = ".fetched.json"
LICENCE = "LICENSE"
ATTEMPTS, PAUSE, TIMEOUT = 4, 0.5, 30.0  # seconds: a pause doubles with each attempt
AT_ONCE = 8
MAX_LISTING = MAX_FILE = 64 * 2**20  # bytes, since a whole answer is held in memory
PLAIN = {"100644", "100755"}  # git's modes of files; the others are links and submodules
SAME_COMMAND = "the same command goes on where this one stopped"


@dataclass(frozen=True)
class Source:
    """`folder` of a GitHub `repository` ("owner/name") at a `commit` (40 hex digits).

    `digests`: what is known of the files without asking the network, by pattern ("train/*.jpg"): see `digest`.
    """

    repository: str
    commit: str
    folder: str
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Blob:
    """A file behind `url`. `path`: where it goes, below the target. `sha`: git's SHA-1 (hex) of its `size` bytes."""

    url: str
    path: str
    sha: str
    size: int


def fetch(source: Source, target: Path, api: str = API, raw: str = RAW, pause: float = PAUSE) -> int:
    """Make `target` a copy of the source's folder, with the repository's licence, and return how many files it has.

    `api`, `raw`: the addresses of GitHub or of a mirror of it. `pause`: seconds before the second attempt.
    Raises RecipeError if `target` holds something else or cannot be read or written, or if files are not those that are
    known; Unavailable if GitHub cannot be reached or sends something else. What was fetched stays.
    """
    try:
        target = target.expanduser().resolve()
    except RuntimeError as error:  # nobody's ~, a loop of symlinks
        raise RecipeError(f"--fetch {target} is no path of a folder ({error}); choose another") from error
    try:
        return _fetch_all(source, target, api, raw, pause)
    except OSError as error:
        why = error.strerror or error
        raise RecipeError(f"cannot read or write {target}: {why}; see to that, then {SAME_COMMAND}") from error


def _fetch_all(source: Source, target: Path, api: str, raw: str, pause: float) -> int:
    from compress.progress import bar  # here, so that layouts can be read without rich

    _check_target(source, target)
    blobs = _tree(source, api, raw, target, pause)
    target.mkdir(parents=True, exist_ok=True)
    (target / MARKER).write_text(json.dumps(_mark(source)), encoding="utf-8")
    pool = ThreadPoolExecutor(AT_ONCE)
    with bar(f"fetch {source.repository.split('/')[-1]}", len(blobs)) as tick:
        try:
            for path in pool.map(lambda blob: _fetch_one(blob, target, pause), blobs):
                tick(path.rpartition("/")[2])
        finally:  # an error and Ctrl-C wait for eight files, not for all
            pool.shutdown(cancel_futures=True)
    for pattern, known in source.digests.items():
        got = digest(target, [blob.path for blob in blobs if fnmatchcase(blob.path, pattern)])
        if got != known:
            raise RecipeError(
                f"{target}/{pattern}: wanted the files of digest {known}, got {got}; report it, and use them not"
            )
    return len(blobs)


def digest(folder: Path, paths: list[str]) -> str:
    """sha256 (hex) over the lines `sha256  path` (as sha256sum writes them) of these files, ordered by path."""
    lines = (f"{hashlib.sha256((folder / path).read_bytes()).hexdigest()}  {path}\n" for path in sorted(paths))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def blob_sha(data: bytes) -> str:
    """The SHA-1 (hex) by which git calls a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _mark(source: Source) -> dict[str, Any]:
    return {name: value for name, value in asdict(source).items() if name != "digests"}


def _check_target(source: Source, target: Path) -> None:
    """Nothing of the user's is overwritten: a folder that is not empty must be one that an earlier fetch made."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        ours = json.loads((target / MARKER).read_text(encoding="utf-8")) == _mark(source)
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise RecipeError(
            f"--fetch {target} exists and was not made by a fetch of {source.repository} at {source.commit[:7]}; "
            "choose another folder"
        )


def _tree(source: Source, api: str, raw: str, target: Path, pause: float) -> list[Blob]:
    """The files of the source's folder, and the licence."""
    url = f"{api}/repos/{source.repository}/git/trees/{source.commit}?recursive=1"
    data = _get(url, MAX_LISTING, pause)
    try:
        listing = json.loads(data)
        entries = [(str(e["path"]), str(e["sha"]), int(e["size"])) for e in listing["tree"] if e["mode"] in PLAIN]
        whole = listing["truncated"] is False
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # an endless size overflows
        raise Unavailable(
            f"{url}: wanted a tree listing of GitHub, got something else ({error!r}); try again later"
        ) from None
    prefix = f"{source.folder}/"
    blobs = []
    for path, sha, size in entries:
        if path == LICENCE or path.startswith(prefix):
            place = path.removeprefix(prefix)
            inside(target, place, url)
            if not 0 <= size <= MAX_FILE:
                raise Unavailable(
                    f"{url}: wanted files of at most {MAX_FILE} bytes, got {path!r} of {size}; that is no copy of "
                    f"{source.repository}: fetch from GitHub or from another mirror"
                )
            address = f"{raw}/{source.repository}/{source.commit}/{quote(path)}"
            blobs.append(Blob(address, place, sha, size))
    if not whole or not any(blob.path != LICENCE for blob in blobs):
        raise Unavailable(
            f"{url}: wanted all files of {prefix}, got a listing that is cut or has none; try again later"
        )
    return blobs


def _fetch_one(blob: Blob, target: Path, pause: float) -> str:
    """See that the file is there and right; returns its path."""
    place = target / blob.path
    if place.is_file() and place.stat().st_size == blob.size and blob_sha(place.read_bytes()) == blob.sha:
        return blob.path
    data = _get(blob.url, blob.size, pause, blob.sha)
    place.parent.mkdir(parents=True, exist_ok=True)
    building = place.with_name(f"{place.name}.part")
    building.write_bytes(data)
    building.replace(place)
    return blob.path


def _get(url: str, most: int, pause: float, sha: str | None = None) -> bytes:
    """The bytes behind an address, at most `most` of them; with `sha`, `most` bytes of that git SHA-1.

    What may pass (no answer, a server's error, a cut or damaged file) is tried ATTEMPTS times.
    """
    why = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "edge-pupil"})
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                data: bytes = answer.read(most + 1)
        except urllib.error.HTTPError as error:
            why = f"the server answered {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
            continue
        except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError; ValueError: no URL
            why = f"no answer ({getattr(error, 'reason', None) or error!r})"
            continue
        if len(data) > most or (sha is not None and (len(data) != most or blob_sha(data) != sha)):
            kind = f"{most} bytes of git SHA-1 {sha}" if sha else f"at most {most} bytes"
            why = f"wanted {kind}, got {len(data)} bytes of {blob_sha(data)}"
            continue
        return data
    raise Unavailable(
        f"cannot fetch {url}: {why}; it needs a network that reaches GitHub (https_proxy is heeded). What was fetched "
        f"is kept: {SAME_COMMAND}"
    )
