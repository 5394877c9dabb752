"""Downloads from the model hub and from URLs: verified, and quick to fail without a network."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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

    It must have the files ``needed``, and may have those in ``useful``. ``offline`` sends no
    request.

    Raises:
        InputMissingError: If a needed file is neither in the cache nor can be downloaded.
        UntrustedFileError: If a file differs from the one that the hub lists.
    """
    from huggingface_hub import constants

    if re.fullmatch("[0-9a-f]{40}", source.revision or ""):
        # A commit never changes, so a cached one needs no request.
        with suppress(*download_errors()):
            return _snapshot(source, needed=needed, cached_only=True)
    files = " and ".join(needed)
    with _fetching(
        str(source),
        offline=offline,
        looked_for=f"{files} of {constants.ENDPOINT}/{source.repository}, "
        f"and in {constants.HF_HUB_CACHE}",
        next_step=f"fetch {files} where there is a network, put them into a folder and name "
        "that in place of it",
    ) as cached_only:
        return _snapshot(source, needed=needed, useful=useful, cached_only=cached_only)


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
    import torch
    from huggingface_hub import constants

    is_url = "://" in source
    cache = Path(torch.hub.get_dir()) / "checkpoints" if is_url else Path(constants.HF_HUB_CACHE)
    path = cache / Path(source).name
    if is_url and path.is_file():
        return _verified(path, _stated_hash(source))
    where = source if is_url else f"{source.rstrip('/')} on the model hub"
    address = source if is_url else _address(source, names)
    with _fetching(
        f"weights of {model}",
        offline=offline,
        looked_for=f"{where}, and in {cache}",
        next_step=f"where there is a network: curl -LO {address}, then pass --weights "
        f"{Path(address).name}; or start from random ones with --no-pretrained",
    ) as cached_only:
        if not is_url:
            return _first_of(source, names, cached_only=cached_only)
        if cached_only:
            raise FileNotFoundError
        with atomic_file(path) as temporary:
            torch.hub.download_url_to_file(source, str(temporary), progress=False)
            _verified(temporary, _stated_hash(source), source=source)
        return path


def fetch_tokeniser(name: str, *, offline: bool) -> None:
    """Download the files of a tokeniser into the hub's cache if they are not there.

    Raises errors as :func:`weights_file` does.
    """
    from huggingface_hub import constants

    with _fetching(
        f"the tokeniser {name}",
        offline=offline,
        looked_for=f"{constants.ENDPOINT}/{name}, and in {constants.HF_HUB_CACHE}",
        next_step="fetch it where there is a network, or choose another backbone",
    ) as cached_only:
        _snapshot(
            HubName(name),
            needed=("tokenizer_config.json",),
            useful=_TOKENISER_FILES,
            cached_only=cached_only,
        )


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
        with suppress(Exception):
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


@contextmanager
def _fetching(what: str, *, offline: bool, looked_for: str, next_step: str) -> Iterator[bool]:
    """Yield whether only the cache can be used; word why a download in the block failed."""
    from huggingface_hub import constants

    reason = ""
    if offline or constants.HF_HUB_OFFLINE:
        reason = "not in the cache, and downloads are forbidden (--offline)"
    elif not hub_answers():
        reason = "not in the cache, and the model hub does not answer"
    try:
        yield bool(reason)
    except download_errors() as error:
        reason = reason or f"cannot be loaded: {' '.join(str(error).split())}"
        raise InputMissingError(
            f"{what}: {reason}", looked_for=looked_for, next_step=next_step
        ) from error


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
    folder = Path(
        snapshot_download(
            source.repository,
            revision=source.revision,
            allow_patterns=patterns,
            local_files_only=cached_only,
            tqdm_class=TerminalBar,
        )
    )
    for name in needed:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"it has no {name}")
    for path in {path for pattern in patterns for path in folder.glob(pattern)}:
        # The cache calls a file by its ETag, which for large files is their SHA-256. The client
        # itself compares nothing but sizes.
        blob = path.resolve()
        if re.fullmatch("[0-9a-f]{64}", blob.name):
            _verified(blob, blob.name)
    return folder


def _address(source: str, names: Sequence[str]) -> str:
    """Return the URL of the preferred file of a repository."""
    from huggingface_hub import hf_hub_url

    repository, (first, *_) = _repository_files(source, names)
    return hf_hub_url(repository.repository, first, revision=repository.revision)


def _repository_files(source: str, names: Sequence[str]) -> tuple[HubName, Sequence[str]]:
    """Split ``OWNER/NAME[@REVISION][/FILE]`` into the repository and the names of its file."""
    owner, name, *file = source.rstrip("/").split("/", 2)
    return HubName.parse(f"{HUB_PREFIX}{owner}/{name}"), file or names


def _first_of(source: str, names: Sequence[str], *, cached_only: bool) -> Path:
    """Return the first of several files that a repository has."""
    repository, files = _repository_files(source, names)
    *others, last = files
    for name in others:
        with suppress(*download_errors()):
            return _snapshot(repository, needed=(name,), cached_only=cached_only) / name
    return _snapshot(repository, needed=(last,), cached_only=cached_only) / last


def _stated_hash(url: str) -> str:
    """Return the SHA-256, or its start, that a publisher states in a URL; empty: none."""
    stated = _HASH_IN_URL.search(url)
    return "" if stated is None else stated[1] or stated[2]


def _verified(path: Path, stated: str, *, source: str = "") -> Path:
    """Return a file, or refuse it if its SHA-256 does not start with ``stated``.

    ``source`` is the URL of a file that was just downloaded and will be deleted.
    """
    if stated and not (digest := sha256_file(path)).startswith(stated):
        raise UntrustedFileError(
            f"{source or path}: not the file that its publisher lists",
            looked_for=f"SHA-256 {stated}; found {digest}",
            next_step="run this again; if it comes back, what is served there was changed"
            if source
            else "delete it, and run this again to fetch it anew",
        )
    return path
