"""Images: every format and mode, damaged, cut, lying about their size, bombs, and what is not a file."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

from edgesmith.runtime.common import isolation
from edgesmith.runtime.images import preprocess
from edgesmith.runtime.serving import frame_sources
from edgesmith.runtime.spec import ModelSpec, Preprocess
from fuzz.damage import damaged
from fuzz.harness import Case

LIMITS = isolation.Limits(120, 1500 << 20)
CONTAINS = False
SPEC = ModelSpec("small", (3, 32, 32), 10, preprocess=Preprocess((32, 32), 36))
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "JPEG2000")


def material(folder):
    """Every format that can hold every mode, as (name, bytes)."""
    made = []
    for mode in MODES:
        for size in ((40, 30), (1, 1)):
            for form in FORMATS:
                data = saved(mode, size, form)
                made += [(f"{mode} {form.lower()} {size[0]}", data)] if data else []
    frames = [Image.fromarray(np.full((20, 20), grey, np.uint8)) for grey in range(0, 250, 10)]
    for form in ("GIF", "TIFF", "WEBP", "PNG"):
        out = io.BytesIO()
        frames[0].save(out, form, save_all=True, append_images=frames[1:])
        made.append((f"animated {form.lower()}", out.getvalue()))
    rotated, out = Image.Exif(), io.BytesIO()
    rotated[0x0112] = 6
    Image.new("RGB", (40, 20)).save(out, "JPEG", exif=rotated)
    return [*made, ("rotated jpeg", out.getvalue())]


def saved(mode, size, form):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    try:
        image = Image.fromarray(noise)
        image = image.convert("I").point(lambda x: x * 256).convert("I;16") if mode == "I;16" else image.convert(mode)
        out = io.BytesIO()
        image.save(out, form)
    except (OSError, ValueError, KeyError, SystemError):
        return None
    return out.getvalue()


def bomb(rng, _):
    """A PNG that says it is huge, in few bytes."""
    width, height = (int(rng.choice([30000, 13000, 9400, 8_000_000, 2**31 - 1, 0, 1])) for _ in range(2))
    depth, colour = (int(value) for value in rng.choice([[1, 0], [8, 2], [8, 6], [16, 2], [8, 3]]))
    rows = zlib.compress(bytes(min(2_000_000, height * (1 + width // 8))))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", rows),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "bomb", b"\x89PNG\r\n\x1a\n" + body


def big_gif(rng, _):
    """A GIF whose canvas is far larger than its frames."""
    sides = struct.pack("<HH", *(int(rng.choice([65535, 9000, 1])) for _ in range(2)))
    frame = b"\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    return "big gif", b"GIF89a" + sides + b"\x80\x00\x00" + bytes(6) + frame * int(rng.integers(1, 20)) + b"\x3b"


def case(rng, material, folder):
    name, data = material[rng.integers(len(material))]
    kind = rng.integers(10)
    if kind == 0:
        label, data = bomb(rng, data)
    elif kind == 1:
        label, data = big_gif(rng, data)
    elif kind == 2:
        label = f"whole {name}"
    else:
        label, data = damaged(rng, data)
    suffix = str(rng.choice(["png", "jpg", "gif", "apng", "tif", "webp", "bmp", "x"]))
    path = folder / f"image.{suffix}"
    if rng.integers(50) == 0:
        label = special(rng, path)
    else:
        path.write_bytes(data)
    ways = (preprocess.read_image, lambda image: preprocess.apply([image], SPEC), walked, opened_before)
    way = ways[rng.integers(len(ways))]
    return Case(label, lambda: way(path))


def special(rng, path):
    """Put something that is not a regular file at the path."""
    what = str(rng.choice(["pipe", "folder", "loop", "device", "nothing"]))
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    return what


def opened_before(path):
    """Give it as a Pillow image, which is decoded when it is used."""
    with preprocess.decoding(path, "image"):
        image = Image.open(path)
    with image:
        preprocess.apply([image], SPEC)


def walked(path):
    """Read it as a source of frames, of which each becomes the network's input."""
    for number, frame in enumerate(frame_sources.frames(str(path))):
        preprocess.apply([frame], SPEC)
        if number == 1:
            break
