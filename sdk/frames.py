"""A frame in: whatever the app holds becomes uint8 (H, W, 3) RGB.

The written rules, the same for arrays and for files:

- grey is copied to three channels; alpha is dropped (not blended);
- a 16-bit PNG keeps the high byte of each value (`value >> 8`);
- a CMYK JPEG is converted to RGB by the decoder; colour profiles are ignored;
- the EXIF rotation of a file is applied; an animation gives its first picture.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtimes import FeedError
from sdk.image_header import ImageHeader, read_header
from sdk.resize import Frame, prepare

__all__ = ["Frame", "prepare", "read_frame"]

MAX_PIXELS = 64_000_000
MAX_BYTES = 64 * 2**20
MIN_SIDE = 8
_ORIENTATION = 0x0112  # the EXIF tag

# By what the sides are divided. Not 8: what it changes was more than embeddings tolerate.
_FLAGS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}

_TO_RGB = {
    ("rgb", 1): cv2.COLOR_GRAY2RGB,
    ("bgr", 1): cv2.COLOR_GRAY2RGB,
    ("bgr", 3): cv2.COLOR_BGR2RGB,
    ("rgb", 4): cv2.COLOR_RGBA2RGB,
    ("bgr", 4): cv2.COLOR_BGRA2RGB,
}


def read_frame(source: object, color: str = "rgb", max_pixels: int = MAX_PIXELS, least: int | None = None) -> Frame:
    """Turn `source` into a C-contiguous uint8 (H, W, 3) RGB frame, values 0..255.

    `source` is one of
    - a uint8 array (H, W, 3), (H, W, 4), (H, W) or (H, W, 1), or any object NumPy can see as one (a PIL image, a torch
      CPU tensor). `color="bgr"` says that its channels come in OpenCV's order. An array that is right already is
      returned as it is, not copied;
    - a path (str or os.PathLike), or bytes, bytearray or memoryview of an encoded JPEG, PNG, WebP or BMP image of at
      most 64 MiB; `color` does not matter to these. With `least`, a JPEG is decoded at 1/4 or 1/2 of its size if both
      its sides are then at least `least` pixels: fewer pixels than the file has, and the decoder's work on them saved.

    Raises FeedError for anything that cannot be used: another type, dtype or shape, a side under 8 pixels, more than
    `max_pixels` pixels (for files checked from the header, before decoding), a missing, cut or unreadable file.
    """
    if color not in ("rgb", "bgr"):
        raise FeedError(f"wanted color 'rgb' or 'bgr', got {color!r}; OpenCV's own frames are 'bgr'")
    if isinstance(source, np.ndarray):
        return _from_array(source, color, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _decode(_read_file(Path(source)), f"{_short(source)}: ", max_pixels, least)
    if isinstance(source, (bytes, bytearray, memoryview)):
        count = source.nbytes if isinstance(source, memoryview) else len(source)
        _check_bytes(count, "")
        return _decode(bytes(source), "", max_pixels, least)
    return _from_array(_as_array(source), color, max_pixels)


def _from_array(array: NDArray[Any], color: str, max_pixels: int) -> Frame:
    if array.dtype != np.uint8:
        raise FeedError(_dtype_text(array.dtype))
    shape = array.shape
    channels = 1 if len(shape) == 2 else shape[2] if len(shape) == 3 else 0
    if channels not in (1, 3, 4):
        raise FeedError(_shape_text(shape))
    _check_size(shape[1], shape[0], max_pixels, "")
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    code = _TO_RGB.get((color, channels))
    return array if code is None else np.asarray(cv2.cvtColor(array, code), np.uint8)


def _dtype_text(dtype: np.dtype[Any]) -> str:
    todo = {
        "f": "convert it to uint8 0..255: (frame * 255).round().clip(0, 255).astype('uint8') if it is 0..1",
        "b": "convert it to uint8 0..255: frame.astype('uint8') * 255",
        "u": "convert it to uint8 0..255: (frame >> 8).astype('uint8') if it uses all 16 bits",
        "i": "convert it to uint8 0..255: frame.clip(0, 255).astype('uint8') if its values are 0..255",
    }
    return f"wanted a uint8 frame, got {dtype}; {todo.get(dtype.kind, 'pass an array of uint8 0..255')}"


def _shape_text(shape: tuple[int, ...]) -> str:
    todo = "pass one RGB, grey or RGBA picture"
    if 0 in shape:
        todo = "it is empty: check the camera or the crop"
    elif len(shape) == 4:
        todo = "pass the frames of a batch one by one, or as a list"
    elif len(shape) == 3 and shape[0] in (1, 3, 4):
        todo = "transpose it: frame.transpose(1, 2, 0)"
    return f"wanted a frame (H, W, 3), (H, W, 4) or (H, W), got shape {shape}; {todo}"


def _as_array(source: object) -> NDArray[Any]:
    kind = type(source).__name__
    if not hasattr(source, "__array__") and not hasattr(source, "__array_interface__"):
        raise FeedError(f"wanted an array, a path or the bytes of an image, got {kind}; pass a uint8 (H, W, 3) array")
    # A PIL image hands out palette indices, CMYK and unrotated pixels as if they were the picture.
    mode = getattr(source, "mode", "RGB")
    if isinstance(mode, str) and mode not in ("RGB", "RGBA", "L"):
        raise FeedError(f"wanted a PIL image of mode RGB, RGBA or L, got {mode}; call image.convert('RGB')")
    try:
        turned = hasattr(source, "getexif") and source.getexif().get(_ORIENTATION, 1) != 1
        array: NDArray[Any] = np.asarray(source)
    except Exception as error:  # any library may stand behind __array__
        why = " ".join(str(error).split())[:200]
        raise FeedError(f"wanted an array, got {kind} that NumPy cannot read ({why}); pass it from the CPU") from None
    if turned:
        raise FeedError(
            "wanted an upright PIL image, got one with an EXIF rotation; pass PIL.ImageOps.exif_transpose(image), or "
            "np.asarray(image) if it is upright already"
        )
    return array


def _short(source: object) -> str:
    text = repr(os.fspath(source) if isinstance(source, os.PathLike) else source)
    return text if len(text) <= 200 else text[:200] + "..."


def _read_file(path: Path) -> bytes:
    where = f"{_short(path)}: "
    try:
        found = path.stat()
        # Before opening: a pipe or a device would block, or never end.
        if stat.S_ISDIR(found.st_mode):
            raise FeedError(f"{where}wanted an image file, got a folder; pass the files in it one by one")
        if not stat.S_ISREG(found.st_mode):
            raise FeedError(f"{where}wanted an image file, got a device or a pipe; read it and pass the bytes")
        _check_bytes(found.st_size, where)
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        raise FeedError(f"{where}wanted an image file, got a path that does not exist; check it") from None
    except FeedError:
        raise
    except (OSError, ValueError) as error:
        raise FeedError(f"{where}wanted an image file, got {type(error).__name__}: {error}; check the path") from None


def _check_bytes(count: int, where: str) -> None:
    if count == 0:
        raise FeedError(f"{where}wanted an encoded image, got 0 bytes; fetch it again")
    if count > MAX_BYTES:
        raise FeedError(f"{where}wanted at most {MAX_BYTES} bytes of image, got {count}; save it smaller")


def _check_size(width: int, height: int, max_pixels: int, where: str) -> None:
    if width < MIN_SIDE or height < MIN_SIDE:
        what = "an empty image" if not width or not height else f"{width} x {height}"
        raise FeedError(f"{where}wanted at least {MIN_SIDE} x {MIN_SIDE} pixels, got {what}; pass a real picture")
    if width * height > max_pixels:
        raise FeedError(f"{where}wanted at most {max_pixels:,} pixels, got {width} x {height}; shrink it first")


def _decode(data: bytes, where: str, max_pixels: int, least: int | None) -> Frame:
    try:
        header = read_header(data)
    except FeedError as error:
        raise FeedError(f"{where}{error}") from None
    _check_size(header.width, header.height, max_pixels, where)
    if not header.complete:  # OpenCV 4 returns what is there and fills the rest with grey
        raise FeedError(f"{where}wanted a whole {header.format}, got one cut after {len(data)} bytes; fetch it again")
    scale = _scale(header, least)
    try:
        frame = cv2.imdecode(np.frombuffer(header.data, np.uint8), _FLAGS[scale])
    except (cv2.error, MemoryError):
        frame = None
    if frame is None or sorted(frame.shape[:2]) != sorted(_sides(header, scale)):
        raise FeedError(f"{where}wanted a readable {header.format}, got one that does not decode; save it again")
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


def _scale(header: ImageHeader, least: int | None) -> int:
    """What a JPEG decoder may divide the sides by: it then computes fewer pixels of each 8 x 8 block."""
    if least is None or header.format != "JPEG":
        return 1
    return next((scale for scale in (4, 2) if min(_sides(header, scale)) >= least), 1)


def _sides(header: ImageHeader, scale: int) -> tuple[int, int]:
    return -(-header.width // scale), -(-header.height // scale)
