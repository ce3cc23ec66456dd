"""WebDataset shards: plain .tar files whose neighbours of one name, up to its first dot, are a sample.

A shard is data from outside. It is read as a stream, nothing of it is unpickled or becomes a path, and what a member
may take is limited before it is read. Addresses are files, https, or http on this machine.
"""

import http.client
import json
import re
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from compress.installed import package_folder
from compress.samples import SPLIT_NAMES, Part, Sample, named
from runtimes import RecipeError, Unavailable
from sdk.frames import MAX_BYTES

IMAGES, TEXTS = ("jpg", "jpeg", "png", "webp", "bmp"), ("cls", "txt", "json")
MOST = {**dict.fromkeys(IMAGES, MAX_BYTES), **dict.fromkeys(TEXTS, 2**20)}  # bytes
MOST_HEADER = 2**20  # bytes of a long name and the like, which tarfile reads whole
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
TIMEOUT = 30.0  # seconds
INSTALL = "pip install 'edge-pupil[data]'"


def check_packages() -> None:
    """Raises Unavailable if what reads shards is not installed."""
    for package in ("webdataset", "braceexpand"):
        package_folder(package, "the data set shards", INSTALL)


def find_shards(root: str) -> list[Part]:
    """The shards that `root` names: a path or an address, with {000..009} and {a,b}; a path with * and ? too.

    Raises RecipeError for an address that is not https, and where no file is; Unavailable as `check_packages`.
    """
    check_packages()
    import braceexpand

    if not root:
        raise RecipeError('the data set shards wants .tar files; add --set data.root="shop-{000..009}.tar"')
    try:
        addresses = list(dict.fromkeys(braceexpand.braceexpand(root)))
    except ValueError as error:
        raise RecipeError(f"data.root: {root!r} cannot be expanded ({error}); mend its braces") from None
    parts: list[Part] = []
    for address in addresses:
        if is_url(address):
            parts.append(Part(address))
            continue
        path = Path(address).expanduser()
        found = [path] if path.is_file() else [Path(each) for each in sorted(glob(str(path)))]  # noqa: PTH207, an absolute pattern
        if not (files := [each.resolve() for each in found if each.is_file()]):
            raise RecipeError(f"data.root: no shard matches {address!r}; give .tar files that are there")
        for file in files:
            status = file.stat()
            parts.append(Part(str(file), f"{status.st_size} {status.st_mtime_ns}", status.st_size / 1e6))
    return list(dict.fromkeys(parts))  # patterns may name a file twice


def is_url(address: str) -> bool:
    """False for a path. Raises RecipeError for an address that is neither a path nor https (http on this machine)."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", address):  # one letter is a drive of Windows
        return False
    parts = urlsplit(address)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in THIS_MACHINE)):
        return True
    raise RecipeError(
        f"data.root: wanted files, or addresses that begin with https:// (or http:// on this machine), got {address!r}"
        f"; {parts.scheme}: is not read"
    )


def read_shard(shard: Part, names: tuple[str, ...]) -> Iterator[Sample]:
    """The samples of a shard, in order. `names`: of labels that are numbers.

    Raises RecipeError for a file that is no whole tar, and for numbers without names; Unavailable for an address that
    does not answer, or sends less than the whole.
    """
    import webdataset.tariterators as tars

    repeated: list[str] = []

    def note(error: Exception) -> bool:
        repeated.append(str(error.args[0])[:200])
        return True

    split = _split_of(shard.name)
    with _opened(shard.name) as stream:
        for found in tars.group_by_keys(_members(stream, shard.name), handler=note):
            yield _sample(found, names, split)
            while repeated:
                yield Sample(repeated.pop(), wrong="a file of that name comes twice")


class _Cut(Exception):
    """What tarfile would take for the end of the archive."""


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise _Cut(str(error)) from None
        if not header.isreg() and header.size > MOST_HEADER:
            raise _Cut(f"a header of {header.size} bytes")
        return header


def _members(stream: IO[bytes], address: str) -> Iterator[dict[str, Any]]:
    """What webdataset groups. Data are None if they are too long, and empty if they are not for us: not read."""
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
            if not member.isreg():  # a link may lead anywhere
                continue
            suffix, data = PurePosixPath(member.name).name.partition(".")[2].lower(), b""
            whole = (
                None if member.issparse() or not 0 <= member.size <= MOST.get(suffix, 0) else tar.extractfile(member)
            )
            if suffix in MOST:
                data = whole.read() if whole is not None else None  # type: ignore[assignment]
            yield {"fname": member.name, "data": data, "__url__": address}


@contextmanager
def _opened(address: str) -> Iterator[IO[bytes]]:
    """The stream; errors while it is read are told as the shard's."""
    url = is_url(address)
    try:
        if url:
            request = urllib.request.Request(address, headers={"User-Agent": "edge-pupil"})
            with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT) as answer:
                yield answer
        else:
            with Path(address).open("rb") as file:
                yield file
    except urllib.error.HTTPError as error:
        raise Unavailable(
            f"cannot read {address}: the server answered {error.code} {error.reason}; see to that"
        ) from None
    except (OSError, http.client.HTTPException, tarfile.TarError, _Cut) as error:
        why = f"{getattr(error, 'reason', None) or error}"
        if url:
            raise Unavailable(f"cannot read {address}: {why}; the same command goes on with it") from None
        raise RecipeError(f"{address} is no whole .tar file ({why}); copy it again, uncompressed") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        is_url(newurl)  # else an https address could lead to one that anybody on the way can change
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _split_of(address: str) -> str:
    """The split that the name of a shard tells ("shop-train-000.tar"), or ""."""
    words = re.split("[^a-z]+", PurePosixPath(address.replace("\\", "/")).name.lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else ""


def _sample(found: dict[str, Any], names: tuple[str, ...], split: str) -> Sample:
    key = str(found["__key__"])
    if ".." in PurePosixPath(key.replace("\\", "/")).parts or key.startswith(("/", "\\")):
        return Sample(key, wrong="its name leads out of the shard")
    images = [suffix for suffix in IMAGES if suffix in found]
    if len(images) != 1:
        return Sample(key, wrong=f"wanted one image ({', '.join(IMAGES)}), got {len(images)}")
    if long := [suffix for suffix in MOST if suffix in found and found[suffix] is None]:
        return Sample(key, wrong=f"its {long[0]} is longer than {MOST[long[0]]} bytes")
    try:
        said = {suffix: found[suffix].decode("utf-8").strip() for suffix in TEXTS if suffix in found}
        about = json.loads(said.get("json", "{}"))
        cells = {name: about[name] for name in ("label", "text", "group", "split") if about.get(name) is not None}
        label = named(str(said.get("cls", cells.get("label", said.get("txt", "")))), names)
    except (ValueError, AttributeError, RecursionError):
        return Sample(key, wrong="its cls, txt or json is no UTF-8 text, or no JSON object")
    except LookupError as error:
        return Sample(key, wrong=str(error.args[0]))
    split = SPLIT_NAMES.get(str(cells.get("split", split)).lower(), str(cells.get("split", split)))
    text, group = (str(cells.get(name, "")) for name in ("text", "group"))
    return Sample(key, found[images[0]], label, text, group, split)
