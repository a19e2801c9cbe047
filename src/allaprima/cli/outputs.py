"""Where `allaprima generate` writes its images: names that lose no file, checked before anything is generated."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from allaprima.domain.file_names import name_of
from allaprima.domain.generation import GenerationRequest, ImageFormat
from allaprima.errors import FieldProblem, InvalidRequest

SUFFIXES = {
    ".png": ImageFormat.PNG,
    ".jpg": ImageFormat.JPEG,
    ".jpeg": ImageFormat.JPEG,
    ".webp": ImageFormat.WEBP,
}


@dataclass(frozen=True, slots=True)
class Outputs:
    """The output of a command: one file, files in a folder named by prompt and seed, or stdout."""

    #: None: stdout.
    path: Path | None
    is_folder: bool
    #: Whether existing files are replaced.
    is_forced: bool

    @classmethod
    def parse(cls, output: str | None, *, is_forced: bool) -> "Outputs":
        """Return the outputs that an option names; None is the working folder, and `-` is stdout."""
        if output == "-":
            return cls(None, is_folder=False, is_forced=is_forced)
        path = Path(output or ".")
        return cls(path, is_folder=path.is_dir() or (output or "").endswith(("/", os.sep)), is_forced=is_forced)

    @property
    def is_stdout(self) -> bool:
        """Whether the image goes to stdout."""
        return self.path is None

    @property
    def suffix(self) -> str:
        """The ending of the files' names, in lower case."""
        return ".png" if self.path is None or self.is_folder else self.path.suffix.lower()

    def problems(self, images: int) -> list[FieldProblem]:
        """Return what prevents the writing of some images."""
        if self.path is None:
            return [] if images == 1 else [FieldProblem("--output", f"- takes one image, not {images}")]
        folder = self.path if self.is_folder else self.path.parent
        found = []
        if self.suffix not in SUFFIXES:
            found.append(FieldProblem("--output", f"must end in {', '.join(SUFFIXES)}; it is {self.path.name}"))
        if not folder.is_dir():
            reason = "No such file or directory" if not folder.exists() else "Not a directory"
            found.append(FieldProblem("--output", f"{self.path} can't be written: {folder}: {reason}"))
        elif not os.access(folder, os.W_OK | os.X_OK):
            found.append(FieldProblem("--output", f"{self.path} can't be written: {folder}: Permission denied"))
        return found

    def write(self, data: bytes, request: GenerationRequest, index: int, number: int | None) -> Path:
        """Write the file of an image and return its path, with a number behind its name if another file has the name.

        index: of the image in its request. number: of the image in the command, from 0; None if there is one image.
        Raises `InvalidRequest`.
        """
        while True:
            path = self._file(request, index, number)
            try:
                # Another process may have created the file meanwhile.
                with path.open("wb" if self.is_forced else "xb") as file:
                    file.write(data)
            except FileExistsError:
                continue
            except OSError as exc:
                raise InvalidRequest(FieldProblem("--output", f"{path} can't be written: {exc.strerror}")) from exc
            return path

    def _file(self, request: GenerationRequest, index: int, number: int | None) -> Path:
        assert self.path is not None  # the image does not go to stdout
        if self.is_folder:
            wanted = self.path / f"{_representable(name_of(request.prompt))}-{request.seed + index}{self.suffix}"
        else:
            wanted = self.path if number is None else self.path.with_stem(f"{self.path.stem}-{number}")
        return wanted if self.is_forced else _unused(wanted)


def _representable(name: str) -> str:
    """Return a name without the characters that file names can't have here, because their encoding is narrower."""
    encoding = sys.getfilesystemencoding()
    return name.encode(encoding, "ignore").decode(encoding, "ignore").strip("-_") or "image"


def _unused(path: Path) -> Path:
    """Return a path, or the first one with a number from 2 behind its name that does not exist."""
    found, number = path, 1
    while found.exists() or found.is_symlink():
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found
