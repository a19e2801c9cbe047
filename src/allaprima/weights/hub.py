"""Pulls FLUX.1 [schnell] from the Hugging Face hub: lists the files and their licences, then downloads the files.

The library huggingface_hub sends the requests. This module adds two functions: a later process resumes an interrupted
download from its `.part` file, and the hash of every file is compared with the hub's. The hub's URL and the token are
configured as for the library (`HF_ENDPOINT`, `HF_TOKEN` or a login).
"""

import glob
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from allaprima.domain.models import SCHNELL_ID
from allaprima.errors import PullFailed, WeightsCorrupt, WeightsTooLarge
from allaprima.weights.paths import RECORD_FILE, layout_folder

ORIGINAL = "black-forest-labs/FLUX.1-schnell"
_TOKENIZERS: Mapping[str, tuple[str, ...]] = {ORIGINAL: ("tokenizer/*", "tokenizer_2/*")}
_GGUF_COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "comfyanonymous/flux_text_encoders": ("clip_l.safetensors",),
    ORIGINAL: ("ae.safetensors", "tokenizer/*", "tokenizer_2/*"),
}
#: The files of each layout, as name patterns by repository.
LAYOUTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "bf16": {
        ORIGINAL: (
            "model_index.json",
            *(f"{folder}/*" for folder in ("transformer", "text_encoder", "text_encoder_2", "vae")),
            "tokenizer/*",
            "tokenizer_2/*",
        )
    },
    "fp8": {"Comfy-Org/flux1-schnell": ("flux1-schnell-fp8.safetensors",), **_TOKENIZERS},
    "gguf-q8": {
        "city96/FLUX.1-schnell-gguf": ("flux1-schnell-Q8_0.gguf",),
        "city96/t5-v1_1-xxl-encoder-gguf": ("t5-v1_1-xxl-encoder-Q8_0.gguf",),
        **_GGUF_COMPANIONS,
    },
    "gguf-q4": {
        "city96/FLUX.1-schnell-gguf": ("flux1-schnell-Q4_K_S.gguf",),
        "city96/t5-v1_1-xxl-encoder-gguf": ("t5-v1_1-xxl-encoder-Q4_K_M.gguf",),
        **_GGUF_COMPANIONS,
    },
}
#: Name endings of the files that are pulled: weights and tokenizers. Code, pickles and images are not pulled.
_ENDINGS = (".safetensors", ".gguf", ".json", ".txt", ".model")


#: What to do on a machine without access to the hub.
_WITHOUT_HUB = (
    "with files from another machine: allaprima serve --model FOLDER; with a mirror of the hub: set HF_ENDPOINT to its "
    "URL"
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub."""

    repo: str
    #: The commit of the repository, as a hash.
    commit: str
    name: str
    size: int
    #: Hash in hexadecimal: SHA-256 of a large file, git's SHA-1 blob hash of a small one.
    digest: str


@dataclass(frozen=True, slots=True)
class PullPlan:
    """The files of a layout and their destination folder."""

    layout: str
    folder: Path
    files: tuple[RemoteFile, ...]
    #: Each repository's licence, as the hub names it.
    licences: Mapping[str, str]

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Number of bytes still to be downloaded; complete files and interrupted downloads on disk are subtracted."""
        return sum(_missing_bytes(self.folder / file.name, file) for file in self.files)


def plan_pull(layout: str, weights_dir: Path) -> PullPlan:
    """Query the hub for the files of a layout of FLUX.1 [schnell].

    Raises `PullFailed` when the hub does not answer or lacks a file of the layout.
    """
    files: list[RemoteFile] = []
    licences = {}
    for repo, patterns in LAYOUTS[layout].items():
        licences[repo], listed = _list_files(repo)
        found = [file for file in listed if any(fnmatch(file.name, pattern) for pattern in patterns)]
        for file in found:
            _check_name(file)
        for pattern in patterns:
            if not any(fnmatch(file.name, pattern) for file in found):
                raise PullFailed(f"the repository {repo} has no file {pattern}, which the layout {layout} needs")
        files += found
    return PullPlan(layout, layout_folder(weights_dir, SCHNELL_ID, layout), tuple(files), licences)


def _list_files(repo: str) -> tuple[str, list[RemoteFile]]:
    """Return a repository's licence and the files whose names have one of `_ENDINGS`."""
    from huggingface_hub import HfApi

    with _translate_errors(repo):
        info = HfApi().model_info(repo, files_metadata=True)
    licence = str(info.card_data.get("license") if info.card_data else "not named")
    files = []
    for listed in info.siblings or []:
        if listed.rfilename.endswith(_ENDINGS):
            digest = listed.lfs.sha256 if listed.lfs else listed.blob_id
            files.append(RemoteFile(repo, info.sha or "", listed.rfilename, listed.size or 0, digest or ""))
    return licence, files


def pull(plan: PullPlan, on_file: Callable[[RemoteFile], None]) -> None:
    """Download the missing files, with a progress bar for each, and check the hash of every file.

    on_file: called before each file. Raises `WeightsTooLarge` when the disk has too little space; `PullFailed` when a
    download fails, after which the next pull resumes it; `WeightsCorrupt` when a file has another hash than the hub's,
    after removing the file.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise PullFailed(f"{plan.folder} can't be created: {exc.strerror}") from exc
    with FileLock(plan.folder / ".lock"):
        free = shutil.disk_usage(plan.folder).free
        if plan.missing > free:
            raise WeightsTooLarge(
                f"{plan.layout} needs {plan.missing / 1e9:.1f} GB more, and {plan.folder} has {free / 1e9:.1f} GB "
                "free; set ALLAPRIMA_ENGINE__WEIGHTS_DIR to another folder"
            )
        _remove_record(plan)
        for file in plan.files:
            on_file(file)
            if _size(plan.folder / file.name) != file.size:
                _download(plan.folder / file.name, file)
            _check_hash(plan.folder / file.name, file)
        _write_record(plan)


def _remove_record(plan: PullPlan) -> None:
    """Remove the record of an earlier pull, and those files of it that are not in the plan.

    A layout without a record is incomplete; `pull` writes a new record after it has checked all files.
    """
    record = plan.folder / RECORD_FILE
    if record.is_file():
        names = {file["name"] for file in json.loads(record.read_bytes())["files"]}
        record.unlink()
        for name in names - {file.name for file in plan.files}:
            (plan.folder / name).unlink(missing_ok=True)


def _write_record(plan: PullPlan) -> None:
    record = {"layout": plan.layout, "licences": dict(plan.licences), "files": [asdict(file) for file in plan.files]}
    unfinished = plan.folder / f"{RECORD_FILE}.part"
    unfinished.write_text(json.dumps(record, indent=1))
    unfinished.replace(plan.folder / RECORD_FILE)


def _check_name(file: RemoteFile) -> None:
    """Raise `PullFailed` for a name outside the destination folder, or a digest that is not a SHA-1 or SHA-256."""
    parts = file.name.split("/")
    is_plain = all(part not in ("", ".", "..") for part in parts) and "\\" not in file.name
    if not (is_plain and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.digest)):
        raise PullFailed(f"the hub lists an invalid file in {file.repo}: {file.name!r} with the hash {file.digest!r}")


def _size(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def _part(path: Path, file: RemoteFile) -> Path:
    """Return the path of a file's unfinished download."""
    return path.with_name(f"{path.name}.{file.digest[:16]}.part")


def _missing_bytes(path: Path, file: RemoteFile) -> int:
    """Return the number of bytes of a file that are still to be downloaded to `path`."""
    return 0 if _size(path) == file.size else file.size - min(file.size, _size(_part(path, file)))


def _download(path: Path, file: RemoteFile) -> None:
    """Download a file, resuming an interrupted download of the same content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path, file)
    for stale in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        if stale != part or _size(stale) > file.size:
            stale.unlink()
    with part.open("ab") as opened, _translate_errors(file.repo):
        _append_rest(opened, file)
    part.replace(path)


def _append_rest(opened: BinaryIO, file: RemoteFile) -> None:
    """Append the missing bytes of a file to its unfinished download, with a progress bar.

    This function alone uses private functions of huggingface_hub, because the public `hf_hub_download` does not resume
    a download of another process. If a release changes them, `tests/weights/test_hub.py` fails.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    http_get(
        hf_hub_url(file.repo, file.name, revision=file.commit),
        opened,
        resume_size=opened.tell(),
        headers=build_hf_headers(),
        expected_size=file.size,
        displayed_filename=file.name,
    )


def _check_hash(path: Path, file: RemoteFile) -> None:
    """Remove the file and raise `WeightsCorrupt` when its hash is not the hub's."""
    with path.open("rb") as opened:
        if len(file.digest) == 64:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        else:
            content = opened.read()
            # Git's blob hash, which is the only hash that the hub publishes for small files.
            found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if found != file.digest:
        path.unlink()
        raise WeightsCorrupt(
            f"{file.name} of {file.repo} has the hash {found}, but the hub lists {file.digest}; the file was removed, "
            "pull again"
        )


@contextmanager
def _translate_errors(repo: str) -> Iterator[None]:
    """Turn errors of huggingface_hub into `PullFailed` with a message that says how to solve the problem."""
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as exc:
        raise PullFailed(
            f"{repo} requires an account that has accepted its terms: accept the terms at "
            f"https://huggingface.co/{repo}, create a token there, and set HF_TOKEN to the token"
        ) from exc
    except RepositoryNotFoundError as exc:
        raise PullFailed(f"the hub has no repository {repo}, or this token (HF_TOKEN) has no access to it") from exc
    except HfHubHTTPError as exc:
        raise PullFailed(f"the hub refused the request for {repo} with status {exc.response.status_code}") from exc
    except OfflineModeIsEnabled as exc:
        raise PullFailed(f"HF_HUB_OFFLINE forbids to connect to {_hub()}; {_WITHOUT_HUB}") from exc
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
        raise PullFailed(f"no connection to {_hub()} ({_reason(exc)}); {_WITHOUT_HUB}") from exc
    except (httpx2.HTTPError, LocalEntryNotFoundError, OSError, ValueError) as exc:
        raise PullFailed(f"{repo} could not be fetched: {_reason(exc)}; pull again to resume the download") from exc


def _reason(error: Exception) -> str:
    """Return the first line of an error, without the number that the system gives it."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error).partition("\n")[0]) or type(error).__name__


def _hub() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT.partition("://")[2] or constants.ENDPOINT
