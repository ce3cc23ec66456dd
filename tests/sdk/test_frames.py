"""Frames in: real images of every kind, made here, and every refusal by its text."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from runtimes import FeedError
from sdk.frames import MAX_BYTES, Frame, read_frame
from sdk.image_header import read_header

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(height: int = 32, width: int = 48) -> Frame:
    """Four plain quarters: each orientation and each channel order shows."""
    frame = np.zeros((height, width, 3), np.uint8)
    top, left = slice(None, height // 2), slice(None, width // 2)
    low, right = slice(height // 2, None), slice(width // 2, None)
    for rows, columns, value in ((top, left, RED), (top, right, GREEN), (low, left, BLUE), (low, right, WHITE)):
        frame[rows, columns] = value
    return frame


def noise(*shape: int) -> Frame:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Frame | Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A real, tiny PNG file that declares width x height."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    body = b"\x89PNG\r\n\x1a\n"
    for name, data in [*chunks, (b"IEND", b"")]:
        body += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return body


# --- arrays


def test_a_right_array_is_returned_uncopied() -> None:
    frame = noise(20, 30, 3)
    assert read_frame(frame) is frame


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1)])
def test_grey_goes_to_three_channels(shape: tuple[int, ...], color: str) -> None:
    grey = noise(*shape)
    frame = read_frame(grey, color=color)
    assert frame.shape == (20, 30, 3) and frame.flags.c_contiguous
    for channel in range(3):
        np.testing.assert_array_equal(frame[..., channel], grey.reshape(20, 30))


def test_channel_order_and_alpha() -> None:
    four = noise(20, 30, 4)
    np.testing.assert_array_equal(read_frame(four), four[..., :3])
    np.testing.assert_array_equal(read_frame(four, color="bgr"), four[..., 2::-1])
    np.testing.assert_array_equal(read_frame(four[..., :3].copy(), color="bgr"), four[..., 2::-1])


@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::-1], np.s_[..., ::-1], np.s_[::2, ::2], np.s_[2:-2, 3:-3]])
def test_views_become_contiguous(view: Any) -> None:
    array = noise(32, 40, 3)
    frame = read_frame(array[view])
    assert frame.flags.c_contiguous and frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, array[view])


def test_other_array_types() -> None:
    class Interface:
        def __init__(self, array: Frame) -> None:
            self.kept, self.__array_interface__ = array, array.__array_interface__

    array = noise(20, 30, 3)
    np.testing.assert_array_equal(read_frame(Interface(array)), array)
    np.testing.assert_array_equal(read_frame(Image.fromarray(array)), array)
    np.testing.assert_array_equal(read_frame(Image.fromarray(array).convert("L"))[..., 0], cv2_grey(array))


def cv2_grey(array: Frame) -> Frame:
    return np.asarray(Image.fromarray(array).convert("L"))


class Broken:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("can't convert cuda:0 tensor\nto numpy")


def turned_pil() -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.open(io.BytesIO(encode(quarters(), "JPEG", exif=exif)))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (np.zeros((0, 0, 3), np.uint8), "at least 8 x 8 pixels, got an empty image"),
        (np.zeros((0, 20, 3), np.uint8), "an empty image"),
        (np.zeros(0, np.uint8), "it is empty: check the camera"),
        (np.zeros((1, 1, 3), np.uint8), "at least 8 x 8 pixels, got 1 x 1; pass a real picture"),
        (np.zeros((7, 100), np.uint8), "got 100 x 7"),
        (np.zeros((20, 20, 3), np.float32), r"uint8 frame, got float32; convert it to uint8 0\.\.255: \(frame \* 255"),
        (np.zeros((20, 20, 3), np.uint16), "uint8 frame, got uint16; .*>> 8"),
        (np.zeros((20, 20, 3), np.int64), "uint8 frame, got int64; .*clip"),
        (np.zeros((20, 20), bool), "uint8 frame, got bool; .*255"),
        (np.array([["a"]]), "uint8 frame, got <U1; pass an array of uint8"),
        (np.zeros((3, 20, 30), np.uint8), r"got shape \(3, 20, 30\); transpose it: frame.transpose\(1, 2, 0\)"),
        (np.zeros((2, 20, 30, 3), np.uint8), "pass the frames of a batch one by one"),
        (np.zeros((20, 30, 2), np.uint8), r"got shape \(20, 30, 2\); pass one RGB, grey or RGBA picture"),
        (np.zeros(900, np.uint8), r"got shape \(900,\)"),
        (np.uint8(3), "wanted a frame"),
        (None, "an array, a path or the bytes of an image, got NoneType"),
        ([[1, 2], [3, 4]], "got list"),
        (Broken(), r"got Broken that NumPy cannot read \(can't convert cuda:0 tensor to numpy\); pass it from the CPU"),
        (Image.new("P", (20, 20)), r"mode RGB, RGBA or L, got P; call image.convert\('RGB'\)"),
        (Image.new("CMYK", (20, 20)), "got CMYK"),
        (turned_pil(), "wanted an upright PIL image, got one with an EXIF rotation; pass PIL.ImageOps.exif_transpose"),
    ],
)
def test_unusable_sources(source: object, text: str) -> None:
    with pytest.raises(FeedError, match=text) as caught:
        read_frame(source)
    assert "\n" not in str(caught.value)


def test_unknown_color_and_pixel_limit() -> None:
    with pytest.raises(FeedError, match=r"wanted color 'rgb' or 'bgr', got 'hsv'"):
        read_frame(noise(20, 20, 3), color="hsv")
    assert read_frame(noise(20, 20, 3), max_pixels=400).shape == (20, 20, 3)
    with pytest.raises(FeedError, match="wanted at most 399 pixels, got 20 x 20; shrink it first"):
        read_frame(noise(20, 20, 3), max_pixels=399)


# --- encoded images


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_files_come_back_exactly(kind: str, tmp_path: Path) -> None:
    array = noise(33, 47, 3)
    data = encode(array, kind, **({"lossless": True} if kind == "WEBP" else {}))
    (tmp_path / "image").write_bytes(data)
    sources = (
        data,
        bytearray(data),
        memoryview(data),
        memoryview(data)[:],
        tmp_path / "image",
        str(tmp_path / "image"),
    )
    for source in sources:
        frame = read_frame(source, color="bgr")  # color is for arrays only
        np.testing.assert_array_equal(frame, array)
        assert frame.flags.c_contiguous


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_files_come_back_nearly(kind: str) -> None:
    frame = read_frame(encode(quarters(), kind, quality=95))
    assert np.abs(frame.astype(int) - quarters())[4:12, 4:20].max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(quarters(), kind, exif=exif, **({} if kind == "PNG" else {"quality": 95}))
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    frame = read_frame(data)
    assert frame.shape == want.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
    assert np.abs(frame.astype(int) - want).max() <= 4


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_the_high_byte(channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 2**16, (16, 24, channels)).astype(np.uint16)
    want = np.repeat(deep, 3, axis=2) if channels == 1 else deep[..., 2::-1]
    np.testing.assert_array_equal(read_frame(cv2.imencode(".png", deep)[1].tobytes()), want >> 8)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA"])
def test_other_png_modes(mode: str) -> None:
    image = Image.fromarray(quarters()).convert(mode)
    want = np.asarray(image.convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(read_frame(encode(image, "PNG")), want)


def test_alpha_of_a_file_is_dropped_not_blended() -> None:
    four = np.concatenate([noise(16, 24, 3), np.zeros((16, 24, 1), np.uint8)], axis=2)
    np.testing.assert_array_equal(read_frame(encode(four, "PNG")), four[..., :3])


def test_cmyk_and_grey_and_progressive_jpeg() -> None:
    image = Image.fromarray(quarters())
    cmyk = read_frame(encode(image.convert("CMYK"), "JPEG", quality=95))
    assert cmyk.shape == (32, 48, 3)
    assert np.abs(cmyk.astype(int) - quarters()).max() <= 8
    grey = read_frame(encode(image.convert("L"), "JPEG"))
    assert grey.shape == (32, 48, 3) and (grey[..., 0] == grey[..., 2]).all()
    assert read_frame(encode(image, "JPEG", progressive=True)).shape == (32, 48, 3)


def test_animations_give_their_first_picture() -> None:
    frames = [Image.fromarray(quarters()), Image.new("RGB", (48, 32), "black")]
    for kind, options in (("WEBP", {"lossless": True}), ("PNG", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(read_frame(data), quarters())


def test_bmp_variants() -> None:
    image = Image.fromarray(quarters())
    for mode in ("1", "L", "P", "RGB"):
        want = np.asarray(image.convert(mode).convert("RGB"))
        np.testing.assert_array_equal(read_frame(encode(image.convert(mode), "BMP")), want)
    top_down = bytearray(encode(quarters(), "BMP"))
    top_down[22:26] = struct.pack("<i", -32)
    np.testing.assert_array_equal(read_frame(top_down), quarters()[::-1])
    core = b"BM" + struct.pack("<IIIIHHHH", 26 + 144 * 32, 0, 26, 12, 48, 32, 1, 24) + bytes(144 * 32)
    assert read_header(core).width, read_header(core).height == (48, 32)
    assert not read_frame(core).any()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_every_cut_file_is_refused(kind: str, tmp_path: Path) -> None:
    data = encode(noise(64, 64, 3), kind)
    for cut in [*range(1, 60), *range(60, len(data), 997), len(data) - 5, len(data) - 1]:
        with pytest.raises(FeedError, match=r"cut after \d+ bytes|bytes that start with|at least 8 x 8"):
            read_frame(data[:cut])
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(FeedError, match=rf"cut'?: wanted a whole (?i:{kind}), got one cut after \d+ bytes; fetch it"):
        read_frame(tmp_path / "cut")


def test_bmp_without_a_declared_size_is_still_seen_cut() -> None:
    data = bytearray(encode(quarters(), "BMP"))
    data[2:6] = bytes(4)
    np.testing.assert_array_equal(read_frame(data), quarters())
    with pytest.raises(FeedError, match="wanted a whole BMP"):
        read_frame(data[:-1])


def test_a_30000_square_png_is_refused_before_decoding() -> None:
    data = png_of(30_000, 30_000)
    start = time.process_time()
    with pytest.raises(FeedError, match="wanted at most 64,000,000 pixels, got 30000 x 30000; shrink it first"):
        read_frame(data)
    assert time.process_time() - start < 0.5  # decoding takes seconds and 2.7 GB
    with pytest.raises(FeedError, match="got an empty image"):
        read_frame(png_of(0, 30))
    with pytest.raises(FeedError, match="got 1 x 1"):
        read_frame(encode(np.zeros((1, 1, 3), np.uint8), "PNG"))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "wanted an encoded image, got 0 bytes; fetch it again"),
        (memoryview(b""), "got 0 bytes"),
        (b"GIF89a" + bytes(50), r"wanted a JPEG, PNG, WebP or BMP image, got bytes that start with b'GIF89a"),
        (bytes(100), "convert it to one of these"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "wanted a readable PNG image, got a file without the IHDR chunk"),
        (png_of(30, 30)[:33] + bytes(12 * 100_001), "PNG image, got more than 100000 chunks"),
        (b"RIFF\x10\0\0\0WEBPJUNK" + bytes(30), "WebP image, got a first chunk named b'JUNK'"),
        (b"RIFF\x10\0\0\0WEBPVP8X" + bytes(5), "got a header cut after"),
        (b"\xff\xd8\xff\xd9", "JPEG image, got an end before any pixel"),
        (b"\xff\xd8\xff\xda\0\2", "JPEG image, got pixels before the frame header"),
        (b"\xff\xd8" + b"\xff\xfe\0\2" * 20_000, "JPEG image, got more than 10000 segments"),
        (b"\xff\xd8\xff" + bytes(20), "got a header cut after 23 bytes"),
    ],
)
def test_unreadable_bytes(data: bytes, text: str) -> None:
    with pytest.raises(FeedError, match=text) as caught:
        read_frame(data)
    assert "\n" not in str(caught.value)


def test_headers_the_decoder_does_not_share() -> None:
    broken = bytearray(encode(quarters(), "PNG"))
    broken[60] ^= 0xFF
    with pytest.raises(FeedError, match="wanted a readable PNG, got one that does not decode; save it again"):
        read_frame(broken)
    with pytest.raises(FeedError, match="got one that does not decode"):  # OpenCV has a limit of its own
        read_frame(png_of(40_000, 40_000), max_pixels=10**10)
    jpeg = encode(quarters(), "JPEG")
    scan = jpeg.index(b"\xff\xda")
    bomb = jpeg[:-2] + jpeg[scan:-2] * 600 + jpeg[-2:]
    with pytest.raises(FeedError, match="JPEG image, got more than 500 scans"):
        read_frame(bomb)
    bmp = bytearray(encode(quarters(), "BMP"))
    bmp[18:22] = struct.pack("<i", -48)
    with pytest.raises(FeedError, match="an empty image"):
        read_frame(bmp)


def test_what_hurts_opencv_does_not_reach_it() -> None:
    """Seen with OpenCV 5.0.0: a long chunk is allocated as declared (3.5 GB), a wild animation is a segfault."""
    long_chunk = bytearray(encode(quarters(), "PNG"))
    long_chunk[33:37] = struct.pack(">I", 0xDC000000)
    start = time.process_time()
    with pytest.raises(FeedError, match="wanted a whole PNG, got one cut"):
        read_frame(long_chunk)
    assert time.process_time() - start < 0.5
    animated = encode(quarters(), "PNG", save_all=True, append_images=[Image.new("RGB", (48, 32))])
    assert b"fcTL" in animated and b"acTL" in animated
    kept = read_header(animated).data
    assert b"fcTL" not in kept and b"acTL" not in kept and b"fdAT" not in kept
    profile = encode(quarters(), "PNG", icc_profile=bytes(5000))
    assert b"iCCP" in profile and b"iCCP" not in read_header(profile).data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_damaged_bytes_give_a_frame_or_a_feed_error(kind: str) -> None:
    data, rng = encode(noise(24, 24, 3), kind), np.random.default_rng(7)
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(0, min(len(data), 200), 3):
            damaged[at] = rng.integers(256)
        try:
            frame = read_frame(damaged, max_pixels=1_000_000)
        except FeedError:
            continue
        assert frame.ndim == 3 and frame.dtype == np.uint8


# --- JPEG at a reduced scale


def photo(height: int, width: int) -> Frame:
    """Something that a JPEG can hold: soft blobs of colour."""
    return np.asarray(cv2.resize(noise(9, 9, 3), (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize(
    ("least", "shape"),
    [(None, (203, 341)), (204, (203, 341)), (103, (203, 341)), (102, (102, 171)), (52, (102, 171)), (51, (51, 86))],
)
def test_a_jpeg_keeps_at_least_what_is_asked_for(least: int | None, shape: tuple[int, int]) -> None:
    """Sides of a reduced JPEG are rounded up; a quarter is the least there is."""
    original = photo(203, 341)
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        frame = read_frame(encode(original, "JPEG", quality=95, **options), least=least)
        assert frame.shape == (*shape, 3) and frame.flags.c_contiguous
        want = cv2.resize(original, shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(frame.astype(int) - want).mean() < 5
    assert read_frame(encode(original, "JPEG"), least=1).shape == (51, 86, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_rotated_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(quarters(128, 192), "JPEG", exif=exif, quality=95)
    frame = read_frame(data, least=30)
    want = read_frame(data)[2::4, 2::4]
    assert frame.shape == want.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
    away = np.abs(frame.astype(int) - want).max(axis=2)
    assert np.median(away) <= 2 and (away > 40).mean() < 0.1  # but for the lines between the quarters


def test_grey_and_cmyk_are_reduced_too() -> None:
    image = Image.fromarray(photo(160, 240))
    for mode in ("L", "CMYK"):
        data = encode(image.convert(mode), "JPEG", quality=95)
        want = cv2.resize(read_frame(data), (60, 40), interpolation=cv2.INTER_AREA)
        assert np.abs(read_frame(data, least=40).astype(int) - want).mean() < 2


def test_only_jpegs_are_reduced() -> None:
    frame = photo(200, 300)
    for kind in ("PNG", "BMP", "WEBP"):
        assert read_frame(encode(frame, kind), least=20).shape == (200, 300, 3)
    assert read_frame(frame, least=20) is frame


def test_a_reduced_jpeg_is_checked_like_any() -> None:
    data = encode(noise(400, 600, 3), "JPEG")
    with pytest.raises(FeedError, match="wanted a whole JPEG, got one cut after"):
        read_frame(data[: len(data) // 2], least=100)
    with pytest.raises(FeedError, match="wanted at most 239,999 pixels, got 600 x 400"):
        read_frame(data, max_pixels=239_999, least=100)
    damaged, frame_header = bytearray(data), data.index(b"\xff\xc0")
    damaged[frame_header + 4] = 99  # bits per value
    with pytest.raises(FeedError, match="wanted a readable JPEG, got one that does not decode; save it again"):
        read_frame(damaged, least=100)


# --- paths


def test_unusable_paths(tmp_path: Path) -> None:
    cases = [
        (tmp_path / "none.png", "none.png': wanted an image file, got a path that does not exist; check it"),
        (str(tmp_path), "wanted an image file, got a folder; pass the files in it one by one"),
        ("bad\0name.png", r"got (ValueError|a path that does not exist)"),
        ("x" * 5000 + ".png", r"\.\.\.: wanted an image file, got OSError"),
    ]
    (tmp_path / "empty.png").touch()
    cases.append((tmp_path / "empty.png", "empty.png': wanted an encoded image, got 0 bytes"))
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    cases.append(
        (tmp_path / "big.png", f"wanted at most {MAX_BYTES} bytes of image, got {MAX_BYTES + 1}; save it smaller")
    )
    (tmp_path / "note.txt").write_text("not an image")
    cases.append((tmp_path / "note.txt", "note.txt': wanted a JPEG, PNG, WebP or BMP image"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        cases.append((tmp_path / "pipe", "got a device or a pipe; read it and pass the bytes"))
    for source, text in cases:
        with pytest.raises(FeedError, match=text) as caught:
            read_frame(source)
        assert "\n" not in str(caught.value)
