"""Pulling FLUX.1 [schnell] from the hub: what there is to fetch, under which licence, and the fetching itself.

Downloads are huggingface_hub's. Here is what it has not: a download that was broken off goes on in the next process,
from a `.part` file, and every file's hash is compared to the hub's. The hub's address and the token come from where
that library takes them (`HF_ENDPOINT`, `HF_TOKEN` or a login).
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

from filelock import FileLock

from allaprima.domain.models import SCHNELL_ID
from allaprima.errors import PullFailed, WeightsCorrupt, WeightsTooLarge
from allaprima.weights.paths import RECORD_FILE, layout_folder

ORIGINAL = "black-forest-labs/FLUX.1-schnell"
_TOKENIZERS: Mapping[str, tuple[str, ...]] = {ORIGINAL: ("tokenizer/*", "tokenizer_2/*")}
_BESIDE_GGUF: Mapping[str, tuple[str, ...]] = {
    "comfyanonymous/flux_text_encoders": ("clip_l.safetensors",),
    ORIGINAL: ("ae.safetensors", "tokenizer/*", "tokenizer_2/*"),
}
#: Which files of which repositories make up a layout, as patterns.
LAYOUTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "bf16": {
        ORIGINAL: (
            "model_index.json",
            *(f"{part}/*" for part in ("transformer", "text_encoder", "text_encoder_2", "vae")),
            "tokenizer/*",
            "tokenizer_2/*",
        )
    },
    "fp8": {"Comfy-Org/flux1-schnell": ("flux1-schnell-fp8.safetensors",), **_TOKENIZERS},
    "gguf-q8": {
        "city96/FLUX.1-schnell-gguf": ("flux1-schnell-Q8_0.gguf",),
        "city96/t5-v1_1-xxl-encoder-gguf": ("t5-v1_1-xxl-encoder-Q8_0.gguf",),
        **_BESIDE_GGUF,
    },
    "gguf-q4": {
        "city96/FLUX.1-schnell-gguf": ("flux1-schnell-Q4_K_S.gguf",),
        "city96/t5-v1_1-xxl-encoder-gguf": ("t5-v1_1-xxl-encoder-Q4_K_M.gguf",),
        **_BESIDE_GGUF,
    },
}
#: The hub may list more beside the files: no code, no pickles, no pictures.
_ENDINGS = (".safetensors", ".gguf", ".json", ".txt", ".model")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub."""

    repo: str
    #: The repository's commit.
    commit: str
    name: str
    size: int
    #: SHA-256 of a large file; of a small one, git's SHA-1 of its blob.
    digest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a layout consists of and where it goes."""

    layout: str
    folder: Path
    files: tuple[RemoteFile, ...]
    #: By repository, as it names it.
    licences: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes that are not here yet, not even in a download that was broken off."""
        here = (self.folder / file.name for file in self.files)
        return sum(
            file.size - min(file.size, _size(path) if _size(path) == file.size else _size(_part(path, file)))
            for path, file in zip(here, self.files, strict=True)
        )


def plan_pull(layout: str, weights_dir: Path) -> Plan:
    """Ask the hub what a layout of FLUX.1 [schnell] consists of.

    Raises `PullFailed` when the hub does not answer, or has not got what the layout needs.
    """
    from huggingface_hub import HfApi

    files: list[RemoteFile] = []
    licences = {}
    for repo, patterns in LAYOUTS[layout].items():
        with _explained(repo):
            info = HfApi().model_info(repo, files_metadata=True)
        licences[repo] = str(info.card_data.get("license") if info.card_data else "not named")
        found = [
            RemoteFile(
                repo, info.sha or "", one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else one.blob_id or ""
            )
            for one in info.siblings or []
            if one.rfilename.endswith(_ENDINGS) and any(fnmatch(one.rfilename, pattern) for pattern in patterns)
        ]
        for file in found:
            _check_name(file)
        for pattern in patterns:
            if not any(fnmatch(file.name, pattern) for file in found):
                raise PullFailed(f"the repository {repo} has no file {pattern}, which the layout {layout} needs")
        files += found
    return Plan(layout, layout_folder(weights_dir, SCHNELL_ID, layout), tuple(files), licences)


def pull(plan: Plan, on_file: Callable[[RemoteFile], None]) -> None:
    """Fetch what is missing, with a progress bar for each file, and check every file's hash.

    on_file: called before each file. Raises `WeightsTooLarge` when the disk has not the room, `PullFailed` when a
    download fails (what is there stays, and the next pull goes on from it), `WeightsCorrupt` for a file with another
    hash than the hub told, which is removed.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise PullFailed(f"{plan.folder} can't be made: {exc.strerror}") from exc
    with FileLock(plan.folder / ".lock"):
        free = shutil.disk_usage(plan.folder).free
        if plan.missing > free:
            raise WeightsTooLarge(
                f"{plan.layout} takes {plan.missing / 1e9:.1f} GB more, and {plan.folder} has {free / 1e9:.1f} GB "
                "free; name another folder with ALLAPRIMA_ENGINE__WEIGHTS_DIR"
            )
        _withdraw(plan)
        for file in plan.files:
            on_file(file)
            if _size(plan.folder / file.name) != file.size:
                _fetch(plan.folder / file.name, file)
            _check(plan.folder / file.name, file)
        _record(plan)


def _withdraw(plan: Plan) -> None:
    """Take an earlier pull's record back, and the files that only it had: until all is checked, nothing is whole."""
    record = plan.folder / RECORD_FILE
    if record.is_file():
        names = {file["name"] for file in json.loads(record.read_bytes())["files"]}
        record.unlink()
        for name in names - {file.name for file in plan.files}:
            (plan.folder / name).unlink(missing_ok=True)


def _record(plan: Plan) -> None:
    record = {"layout": plan.layout, "licences": dict(plan.licences), "files": [asdict(file) for file in plan.files]}
    unfinished = plan.folder / f"{RECORD_FILE}.part"
    unfinished.write_text(json.dumps(record, indent=1))
    unfinished.replace(plan.folder / RECORD_FILE)


def _check_name(file: RemoteFile) -> None:
    """Refuse a file whose name would leave its folder, or whose hash is none."""
    parts = file.name.split("/")
    is_plain = all(part not in ("", ".", "..") for part in parts) and "\\" not in file.name
    if not (is_plain and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.digest)):
        raise PullFailed(f"the hub tells of a file {file.name!r} in {file.repo} with the hash {file.digest!r}")


def _size(path: Path) -> int:
    """Return the bytes of a file; none where there is none."""
    return path.stat().st_size if path.is_file() else 0


def _part(path: Path, file: RemoteFile) -> Path:
    """Return where a download is kept until it is whole."""
    return path.with_name(f"{path.name}.{file.digest[:16]}.part")


def _fetch(path: Path, file: RemoteFile) -> None:
    """Download a file, from where an earlier download of the same content ended."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path, file)
    for stale in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        if stale != part or _size(stale) > file.size:
            stale.unlink()
    with part.open("ab") as opened, _explained(file.repo):
        http_get(
            hf_hub_url(file.repo, file.name, revision=file.commit),
            opened,
            resume_size=opened.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.name,
        )
    part.replace(path)


def _check(path: Path, file: RemoteFile) -> None:
    with path.open("rb") as opened:
        if len(file.digest) == 64:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        else:
            content = opened.read()
            # Git's own name for the file, no seal of ours.
            found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if found != file.digest:
        path.unlink()
        raise WeightsCorrupt(
            f"{file.name} of {file.repo} has the hash {found}, where the hub told {file.digest}; it was removed, "
            "pull again"
        )


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what the hub's library raises into a sentence that says what to do."""
    import httpx2
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        yield
    except GatedRepoError as exc:
        raise PullFailed(
            f"the authors of {repo} ask for an account that has accepted their terms: accept them at "
            f"https://huggingface.co/{repo}, make a token there, and put it into HF_TOKEN"
        ) from exc
    except RepositoryNotFoundError as exc:
        raise PullFailed(f"the hub has no repository {repo}, or not for this token (HF_TOKEN)") from exc
    except HfHubHTTPError as exc:
        raise PullFailed(f"the hub refused {repo} with status {exc.response.status_code}") from exc
    except (httpx2.HTTPError, LocalEntryNotFoundError, OSError, ValueError) as exc:
        raise PullFailed(
            f"{repo} could not be fetched: {(str(exc).splitlines() or [type(exc).__name__])[0]}; pull again to go on"
        ) from exc
