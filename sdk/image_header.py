"""What an encoded image says about itself, read without decoding a pixel.

A decoder allocates what the header asks for, so a 100-byte file can cost gigabytes; OpenCV's own limit is a thousand
million pixels. The size is therefore read here first. Four formats only: every further decoder is attack surface,
and cameras, phones and web pages write these.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from runtimes import FeedError

FORMATS = "JPEG, PNG, WebP or BMP"
# A real JPEG has some ten segments before its pixels, a progressive one some ten scans. Files with thousands of either
# exist to burn time: each scan costs a pass over the whole picture (libjpeg-turbo's own advice is a limit).
_MAX_SEGMENTS = 10_000
_MAX_SCANS = 500
_MAX_CHUNKS = 100_000  # a PNG of 64 MiB in the usual chunks of 8 KiB has 8,000
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"})


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format name, size in pixels as stored (before EXIF rotation), whether the data reach their own end, and the part
    of them that is for the decoder."""

    format: str
    width: int
    height: int
    complete: bool
    data: bytes


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an encoded image; `data` is the whole file.

    Sizes are the stored ones and may be zero. Raises FeedError for a format other than JPEG, PNG, WebP and BMP, for a
    header that is cut or makes no sense, and for a JPEG with thousands of segments or scans.
    """
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg(data)
        if data[:8] == _PNG_START:
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:2] == b"BM":
            return _bmp(data)
    except (struct.error, IndexError):
        raise FeedError(f"wanted a complete image, got a header cut after {len(data)} bytes; fetch it again") from None
    raise FeedError(f"wanted a {FORMATS} image, got bytes that start with {data[:8]!r}; convert it to one of these")


def _senseless(name: str, why: str) -> FeedError:
    return FeedError(f"wanted a readable {name} image, got {why}; save it again with another program")


def _png(data: bytes) -> ImageHeader:
    """Walk the chunks, and pass on only those that make the picture and its rotation.

    OpenCV 5 allocates what a chunk's length says (2 KB of file took 3.5 GB and 14 s), and a damaged animation ends the
    whole process with a segmentation fault. Without its animation chunks such a file is its first picture.
    """
    width, height = struct.unpack_from(">II", data, 16)
    if data[12:16] != b"IHDR":
        raise _senseless("PNG", "a file without the IHDR chunk in front")
    kept, pos = [_PNG_START], len(_PNG_START)
    for _ in range(_MAX_CHUNKS):
        if pos + 12 > len(data):
            return ImageHeader("PNG", width, height, False, b"")
        length, name = struct.unpack_from(">I4s", data, pos)
        end = pos + 12 + length
        if name in _PNG_CHUNKS:
            kept.append(data[pos:end])
        if name == b"IEND":
            return ImageHeader("PNG", width, height, end <= len(data), b"".join(kept))
        pos = end
    raise _senseless("PNG", f"more than {_MAX_CHUNKS} chunks")


def _jpeg(data: bytes) -> ImageHeader:
    """Walk the segments as libjpeg does (it skips garbage between them), so that both see the same frame header."""
    pos, size = 2, None
    for _ in range(_MAX_SEGMENTS):
        pos = data.find(b"\xff", pos)
        if pos < 0:
            raise IndexError
        while data[pos] == 0xFF:
            pos += 1
        marker = data[pos]
        pos += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # stuffing and markers without a length
            continue
        if marker == 0xD9:
            raise _senseless("JPEG", "an end before any pixel")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, pos + 3)
            size = size or (width, height)
        if marker == 0xDA:
            if size is None:
                raise _senseless("JPEG", "pixels before the frame header")
            if data.count(b"\xff\xda", pos) >= _MAX_SCANS:
                raise _senseless("JPEG", f"more than {_MAX_SCANS} scans")
            return ImageHeader("JPEG", *size, data.rfind(b"\xff\xd9", pos) > 0, data)
        pos += max(2, struct.unpack_from(">H", data, pos)[0])
    raise _senseless("JPEG", f"more than {_MAX_SEGMENTS} segments")


def _webp(data: bytes) -> ImageHeader:
    complete = len(data) >= 8 + struct.unpack_from("<I", data, 4)[0]
    kind = data[12:16]
    if len(kind) < 4:
        raise IndexError
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        if len(data) < 30:
            raise IndexError
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise _senseless("WebP", f"a first chunk named {kind!r}")
    return ImageHeader("WebP", width, height, complete, data)


def _bmp(data: bytes) -> ImageHeader:
    declared, offset, header = struct.unpack_from("<I4xII", data, 2)
    if header == 12:
        width, height, depth = struct.unpack_from("<HH2xH", data, 18)
        compression = 0
    else:
        width, height, depth, compression = struct.unpack_from("<ii2xHI", data, 18)
        height = abs(height)  # negative: the first row is the top one
    # Some writers leave the declared size at 0; the rows of an uncompressed picture can be counted.
    rows = 0 if compression else offset + (width * depth + 31) // 32 * 4 * height
    return ImageHeader("BMP", max(0, width), height, len(data) >= max(declared, rows), data)
