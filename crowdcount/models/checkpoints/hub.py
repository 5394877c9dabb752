"""Downloads from the model hub and from URLs: verified, and quick to fail without a network."""

import contextlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crowdcount.errors import InputMissingError, UntrustedFileError, UsageError
from crowdcount.files import atomic_file, sha256_file

ANSWER_SECONDS = 3.0
"""Time limit for the model hub to answer; after it the hub counts as unreachable."""

HUB_PREFIX = "hf://"
"""``hf://OWNER/NAME`` is a checkpoint in a repository of the model hub, ``...@REVISION`` one of its
commits, branches or tags."""

TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of weights in repositories of these libraries, the preferred one first."""

_REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_TOKENISER_FILES = ("*.json", "*.model", "*.txt")
_HASH_IN_URL = re.compile(r"/([0-9a-f]{64})/[^/]+$|-([0-9a-f]{8,64})\.[a-z]+$")
"""OpenAI states the SHA-256 of a file as its folder, torchvision and timm its start in its name."""


@dataclass(frozen=True)
class HubName:
    """A repository of the model hub and a state of it."""

    repository: str
    revision: str | None = None
    """Commit, branch or tag; None: the newest commit of the main branch."""

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Read ``hf://OWNER/NAME[@REVISION]``.

        Raises:
            UsageError: If it has another form.
        """
        parts = re.fullmatch(rf"{HUB_PREFIX}({_REPOSITORY})(?:@([\w./-]+))?", text)
        if parts is None:
            raise UsageError(
                f"{text}: not a repository of the model hub",
                looked_for=f"{HUB_PREFIX}OWNER/NAME or {HUB_PREFIX}OWNER/NAME@REVISION",
            )
        return cls(*parts.groups())

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{HUB_PREFIX}{self.repository}{revision}"


def check_repository(name: str) -> None:
    """Raise UsageError for a name that is not of the form ``OWNER/NAME``."""
    if not re.fullmatch(_REPOSITORY, name):
        raise UsageError(f"{name}: not a repository of the model hub", looked_for="OWNER/NAME")


def hub_folder(
    source: HubName, *, needed: Sequence[str], useful: Sequence[str] = (), offline: bool
) -> Path:
    """Return the cached folder of one commit of a repository; download the files it lacks.

    Args:
        source: The repository.
        needed: Files that it must have.
        useful: Files to download if it has them.
        offline: Send no request; use the cache alone.

    Raises:
        InputMissingError: If a needed file is neither in the cache nor can be downloaded.
        UntrustedFileError: If a file differs from the one that the hub lists.
    """
    from huggingface_hub import constants

    if re.fullmatch("[0-9a-f]{40}", source.revision or ""):
        # A commit never changes, so a cached one needs no request.
        with contextlib.suppress(_UnavailableError):
            return _snapshot(source, needed=needed, cached_only=True)
    reason = _no_network(offline=offline)
    try:
        return _snapshot(source, needed=needed, useful=useful, cached_only=bool(reason))
    except _UnavailableError as error:
        files = " and ".join(needed)
        raise InputMissingError(
            f"{source}: {reason or error}",
            looked_for=f"{files} of {constants.ENDPOINT}/{source.repository}, "
            f"and in {constants.HF_HUB_CACHE}",
            next_step=f"fetch {files} where there is a network, put them into a folder and name "
            "that in place of it",
        ) from error


def weights_file(model: str, *, source: str, names: Sequence[str] = (), offline: bool) -> Path:
    """Return the cached file of a model's pretrained weights; download it if needed.

    Args:
        model: The model, for messages.
        source: A URL, or a repository of the hub as ``OWNER/NAME[@REVISION]``; a slash and the name
            of a file may follow, which then replaces ``names``.
        names: Names that the file can have in the repository, the preferred one first.
        offline: Send no request; use the cache alone.

    Raises:
        InputMissingError: If it is neither in the cache nor can be downloaded.
        UntrustedFileError: If its checksum differs from the one that its publisher states.
    """
    from huggingface_hub import constants

    is_url = "://" in source
    reason = ""
    try:
        if is_url:
            path = _url_cache() / Path(source).name
            reason = "" if path.is_file() else _no_network(offline=offline)
            return _download(source, path, cached_only=bool(reason))
        reason = _no_network(offline=offline)
        return _first_of(source, names, cached_only=bool(reason))
    except _UnavailableError as error:
        where = source if is_url else f"{source.rstrip('/')} on the model hub"
        raise InputMissingError(
            f"weights of {model}: {reason or error}",
            looked_for=f"{where}, and in {_url_cache() if is_url else constants.HF_HUB_CACHE}",
            next_step="fetch them where there is a network and pass --weights FILE, "
            "or start from random ones with --no-pretrained",
        ) from error


def fetch_tokeniser(name: str, *, offline: bool) -> None:
    """Download the files of a tokeniser into the hub's cache if they are not there.

    Raises:
        InputMissingError: If they are neither in the cache nor can be downloaded.
        UntrustedFileError: If a file differs from the one that the hub lists.
    """
    from huggingface_hub import constants

    reason = _no_network(offline=offline)
    try:
        _snapshot(
            HubName(name),
            needed=("tokenizer_config.json",),
            useful=_TOKENISER_FILES,
            cached_only=bool(reason),
        )
    except _UnavailableError as error:
        raise InputMissingError(
            f"the tokeniser {name}: {reason or error}",
            looked_for=f"{constants.ENDPOINT}/{name}, and in {constants.HF_HUB_CACHE}",
            next_step="fetch it where there is a network, or choose another backbone",
        ) from error


def hub_answers() -> bool:
    """Return whether the model hub answers within :data:`ANSWER_SECONDS`.

    The hub's own client sends the request, so its proxy, certificates and endpoint are used. It
    runs on a thread, because looking up a host name has no time limit, and because the client
    repeats failed requests for most of a minute.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        # The errors of an unreachable hub depend on the client's version.
        with contextlib.suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return answered.is_set()


def download_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that the hub's client and PyTorch raise when a download fails."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    # The HTTP library under the client, and so its error, depends on the client's version.
    return (OSError, RuntimeError, HTTPError)


class _UnavailableError(Exception):
    """A file is neither in the cache nor can be downloaded, for the reason in its text."""


def _no_network(*, offline: bool) -> str:
    """Return why only the cache can be used; empty if the hub answers."""
    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE:
        return "not in the cache, and downloads are forbidden (--offline)"
    return "" if hub_answers() else "not in the cache, and the model hub does not answer"


def _snapshot(
    source: HubName, *, needed: Sequence[str] = (), useful: Sequence[str] = (), cached_only: bool
) -> Path:
    """Return the cached folder of one commit after downloading and verifying its files.

    ``needed`` are names of files, ``useful`` names or patterns.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class TerminalBar(tqdm):
        """A progress bar that only a terminal shows."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": None})  # type: ignore[no-untyped-call]

    patterns = [*needed, *useful]
    try:
        folder = Path(
            snapshot_download(
                source.repository,
                revision=source.revision,
                allow_patterns=patterns,
                local_files_only=cached_only,
                tqdm_class=TerminalBar,
            )
        )
    except download_errors() as error:
        raise _UnavailableError(f"cannot be loaded: {' '.join(str(error).split())}") from error
    for name in needed:
        if not (folder / name).is_file():
            raise _UnavailableError(f"cannot be loaded: it has no {name}")
    for path in {path for pattern in patterns for path in folder.glob(pattern)}:
        # The cache calls a file by its ETag, which for large files is their SHA-256. The client
        # itself compares nothing but sizes.
        blob = path.resolve()
        if re.fullmatch("[0-9a-f]{64}", blob.name):
            _verify(blob, blob.name)
    return folder


def _first_of(source: str, names: Sequence[str], *, cached_only: bool) -> Path:
    """Return the first of several files that a repository has."""
    owner, name, *file = source.rstrip("/").split("/", 2)
    repository = HubName.parse(f"{HUB_PREFIX}{owner}/{name}")
    failures: list[_UnavailableError] = []
    for name in file or names:
        try:
            return _snapshot(repository, needed=(name,), cached_only=cached_only) / name
        except _UnavailableError as error:
            failures.append(error)
    raise failures[0]


def _download(url: str, path: Path, *, cached_only: bool) -> Path:
    """Return ``path`` after downloading it from a URL, if it is not there, and verifying it."""
    import torch

    stated = _HASH_IN_URL.search(url)
    digest = "" if stated is None else stated[1] or stated[2]
    if not path.is_file():
        if cached_only:
            raise _UnavailableError
        try:
            with atomic_file(path) as temporary:
                torch.hub.download_url_to_file(url, str(temporary), progress=False)
                _verify(temporary, digest, source=url)
        except download_errors() as error:
            raise _UnavailableError(f"cannot be loaded: {' '.join(str(error).split())}") from error
    elif digest:
        _verify(path, digest)
    return path


def _verify(path: Path, stated: str, *, source: str = "") -> None:
    """Refuse a file whose SHA-256 does not start with ``stated``.

    ``source`` is the URL of a file that was just downloaded and will be deleted.
    """
    if not (digest := sha256_file(path)).startswith(stated):
        raise UntrustedFileError(
            f"{source or path}: not the file that its publisher lists",
            looked_for=f"SHA-256 {stated}; found {digest}",
            next_step="run this again; if it comes back, what is served there was changed"
            if source
            else "delete it, and run this again to fetch it anew",
        )


def _url_cache() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"
