"""Sources of frames: an image, a folder, an animation, a video file or a camera; and writers of annotated frames.

Pillow reads images and animations (GIF, APNG, WebP, multi-page TIFF); videos and cameras need OpenCV.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.files import atomic_file, unreadable
from ..common.packages import need
from ..datasets.image_folder import SUFFIXES
from ..errors import NotAvailable, RunError, UsageError
from ..images.preprocess import decoding
from ..outputs import STAMP, png_stamp

if TYPE_CHECKING:
    from numpy.typing import NDArray

ANIMATIONS = frozenset({".gif", ".apng"})
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v"})
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "MJPG"}
FPS = 25


def frames(source: str) -> Iterator[Any]:
    """Yield a source's frames: paths of image files, or uint8 arrays (H, W, 3) in RGB.

    Args:
        source: A file, a folder of images, or "camera", "camera:1" for a camera by its number.

    Raises:
        UsageError: The source does not exist, or the folder contains no images; raised at once, not at the first frame.
        NotAvailable: It needs OpenCV, which is not installed.
        RunError: The camera or video ends with an error (during iteration).
    """
    if match := re.fullmatch(r"camera(?::(\d+))?", source):
        return _captured(int(match[1] or 0), source)
    path, why = Path(source), unreadable(source)
    if why == "a folder":
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise UsageError(f"{path} contains no images", expected=", ".join(sorted(SUFFIXES)))
        return iter(files)
    if why:
        why = "no such file or folder" if why == "no such file" else why
        raise UsageError(f"cannot read source {source[:300]}", got=why, expected="or camera, camera:1")
    if path.suffix.lower() in ANIMATIONS:
        return _animation(path)
    return _captured(str(path), source) if path.suffix.lower() in VIDEOS else iter([path])


def _animation(path: Path) -> Iterator[NDArray[np.uint8]]:
    with decoding(path, "animation"):
        image = need("PIL.Image").open(path)
    with image:
        for number in itertools.count():
            with decoding(path, "animation"):
                try:
                    image.seek(number)
                except EOFError:
                    return
                frame = np.asarray(image.convert("RGB"))
            yield frame


def _captured(what: int | str, name: str) -> Iterator[NDArray[np.uint8]]:
    cv2 = _opencv(name)
    capture = cv2.VideoCapture(what)
    if not capture.isOpened():
        capture.release()
        raise UsageError(f"cannot open {name}", do="check the path, or that the camera is plugged in and free")
    return _grabbed(capture, name, live=isinstance(what, int))


def _opencv(name: str) -> Any:
    try:
        return need("cv2")
    except NotAvailable as error:
        raise NotAvailable(f"{name} needs OpenCV", got=error.got, do="pip install opencv-python-headless") from error


def _grabbed(capture: Any, name: str, live: bool) -> Iterator[NDArray[np.uint8]]:
    try:
        while True:
            grabbed, frame = capture.read()
            if not grabbed:
                if live:
                    raise RunError(f"{name} returns no more frames", do="check its cable")
                return
            yield np.ascontiguousarray(frame[..., ::-1])
    finally:
        capture.release()


def open_writer(target: Path) -> Writer:
    """Return a writer of annotated frames: one PNG per frame in a folder, or all frames in a `.gif` or video file.

    Raises:
        UsageError: Frames cannot be written to this type of file.
        NotAvailable: A video, and OpenCV is not installed.
    """
    suffix = target.suffix.lower()
    if suffix in CODECS:
        _opencv(str(target))
        return VideoWriter(target)
    if suffix not in ("", ".gif"):
        raise UsageError(f"cannot write {target}", got=suffix, expected=f"a folder, .gif, {', '.join(CODECS)}")
    return AnimationWriter(target) if suffix else Writer(target)


class Writer:
    """Write frames, uint8 (H, W, 3) in RGB, as PNG files in a folder; the other writers write one file."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._names: dict[str, int] = {}

    def add(self, index: int, image: NDArray[np.uint8], name: str = "") -> Path:
        """Keep one frame, under the name of its file where it has one; return the path that it is written to."""
        name = name or f"{index:06d}"
        number = self._names[name] = self._names.get(name, 0) + 1
        path = self.target / f"{name}{f'-{number}' if number > 1 else ''}.png"
        with atomic_file(path) as temporary:
            need("PIL.Image").fromarray(image).save(temporary, format="PNG", pnginfo=png_stamp())
        return path

    def close(self) -> None:
        """Finish writing."""


class AnimationWriter(Writer):
    """Collect frames in memory, and write a GIF at the end."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self._frames = list[Any]()

    def add(self, index: int, image: NDArray[np.uint8], name: str = "") -> Path:
        """Keep one frame."""
        self._frames.append(need("PIL.Image").fromarray(image))
        return self.target

    def close(self) -> None:
        """Write the animation if there are frames."""
        if self._frames:
            with atomic_file(self.target) as temporary:
                first, *rest = self._frames
                first.save(
                    temporary, format="GIF", save_all=True, append_images=rest, duration=1000 // FPS, loop=0,
                    comment=STAMP.encode(),
                )  # fmt: skip
            self._frames.clear()


class VideoWriter(Writer):
    """Write frames to a video as they arrive; all are resized to the size of the first."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self._open, self._size = contextlib.ExitStack(), (0, 0)
        self._video: Any = None

    def add(self, index: int, image: NDArray[np.uint8], name: str = "") -> Path:
        """Write one frame.

        Raises:
            RunError: OpenCV cannot write such a video here.
        """
        cv2 = _opencv(str(self.target))
        if self._video is None:
            self._size = (image.shape[1], image.shape[0])
            place = str(self._open.enter_context(atomic_file(self.target)))
            code = cv2.VideoWriter.fourcc(*CODECS[self.target.suffix.lower()])
            self._video = cv2.VideoWriter(place, code, FPS, self._size)
            if not self._video.isOpened():
                raise RunError(
                    f"cannot write {self.target}", got="there is no encoder for it here", do="write a folder instead"
                )
        frame = np.ascontiguousarray(image[..., ::-1])
        self._video.write(frame if frame.shape[1::-1] == self._size else cv2.resize(frame, self._size))
        return self.target

    def close(self) -> None:
        """Finish the file if there are frames."""
        if self._video is not None:
            self._video.release()
            self._video = None
        self._open.close()
