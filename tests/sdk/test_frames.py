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

from runtimes import BundleError, FeedError
from sdk.frames import MAX_BYTES, Frame, prepare, read_frame
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
    assert prepare(noise(16, 16, 3), 16) is not None
    square = noise(16, 16, 3)
    assert prepare(read_frame(square), 16) is square


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


# --- prepare


def area_by_hand(frame: Frame, height: int, width: int) -> np.ndarray[Any, Any]:
    """The docstring's rule in float64: shrink as a matrix of covered fractions, enlarge as bilinear weights."""

    def shrink(length: int, size: int) -> np.ndarray[Any, Any]:
        edges = np.arange(size + 1) * length / size
        low = np.maximum(edges[:-1, None], np.arange(length))
        high = np.minimum(edges[1:, None], np.arange(length) + 1)
        return np.clip(high - low, 0, None) * size / length

    def enlarge(length: int, size: int) -> np.ndarray[Any, Any]:
        where = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        return np.clip(1 - np.abs(where[:, None] - np.arange(length)), 0, None)

    def apply(values: np.ndarray[Any, Any], rows: Any, columns: Any) -> np.ndarray[Any, Any]:
        return np.floor(np.einsum("ih,hwc,jw->ijc", rows, values, columns, optimize=True) + 0.5)

    h, w = frame.shape[:2]
    smaller = apply(frame.astype(float), shrink(h, min(h, height)), shrink(w, min(w, width)))
    return apply(smaller, enlarge(min(h, height), height), enlarge(min(w, width), width))


@pytest.mark.parametrize("size", [16, 96, 224])
@pytest.mark.parametrize(
    "shape", [(480, 640), (64, 64), (192, 192), (100, 300), (300, 97), (8, 500), (96, 192), (33, 47)]
)
def test_area_follows_its_written_rule(shape: tuple[int, int], size: int) -> None:
    frame = noise(*shape, 3)
    out = prepare(frame, size)
    assert out.shape == (size, size, 3) and out.dtype == np.uint8 and out.flags.c_contiguous
    assert np.abs(out - area_by_hand(frame, size, size)).max() <= 1


def test_area_does_not_alias_and_keeps_constants() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    assert set(np.unique(prepare(stripes, 100))) <= {127, 128}
    for size in (8, 57, 300):
        assert (prepare(np.full((111, 57, 3), 201, np.uint8), size) == 201).all()


@pytest.mark.parametrize("shape", [(64, 64), (64, 96), (97, 64), (65, 64), (200, 150)])
def test_center_takes_the_largest_centred_square(shape: tuple[int, int]) -> None:
    frame, side = noise(*shape, 3), min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = np.ascontiguousarray(frame[top : top + side, left : left + side])
    np.testing.assert_array_equal(prepare(frame, side, crop="center"), square)
    np.testing.assert_array_equal(prepare(frame, 48, crop="center"), prepare(square, 48))
    assert prepare(frame, side, crop="center").flags.c_contiguous


def test_prepare_leaves_its_input_alone_and_repeats() -> None:
    frame = noise(100, 130, 3)
    before = frame.copy()
    np.testing.assert_array_equal(prepare(frame, 64), prepare(frame, 64))
    np.testing.assert_array_equal(frame, before)
    np.testing.assert_array_equal(prepare(frame[:, ::-1], 64), prepare(frame[:, ::-1].copy(), 64))


def test_prepare_refusals() -> None:
    frame = noise(20, 20, 3)
    with pytest.raises(BundleError, match="wanted resize 'area', got 'lanczos'; a newer version may know it: update"):
        prepare(frame, 16, resize="lanczos")
    with pytest.raises(BundleError, match="wanted crop 'none' or 'center', got 'top'"):
        prepare(frame, 16, crop="top")
    for size in (0, -4, 7, 4097):
        with pytest.raises(BundleError, match=rf"wanted an image size of 8\.\.4096 pixels, got {size}"):
            prepare(frame, size)
    for wrong in (frame.astype(np.float32), frame[..., 0], frame[:0], noise(20, 20, 4)):
        with pytest.raises(FeedError, match=r"wanted a uint8 \(H, W, 3\) frame, got .*; call read_frame first"):
            prepare(wrong, 16)  # type: ignore[arg-type]
