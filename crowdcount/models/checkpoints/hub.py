"""Downloads: without a network they fail at once and say what to do; what comes is verified."""

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crowdcount.errors import InputMissingError, UntrustedFileError, UsageError
from crowdcount.files import sha256_file

ANSWER_SECONDS = 3.0
"""How long the model hub may take to answer before it counts as out of reach."""

HUB_PREFIX = "hf://"
"""``hf://OWNER/NAME`` is a checkpoint in a repository of the model hub, ``...@REVISION`` one of its
commits, branches or tags."""

_REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")
"""How torchvision and timm write the first digits of a SHA-256 into the names of files."""


@dataclass(frozen=True)
class HubName:
    """A repository of the model hub, and which state of it."""

    repository: str
    revision: str | None = None
    """Commit, branch or tag; None: the newest state of its main branch."""

    @classmethod
    def parse(cls, text: str) -> "HubName":
        """Read ``hf://OWNER/NAME[@REVISION]``.

        Raises:
            UsageError: If it is written in another way.
        """
        found = re.fullmatch(rf"{HUB_PREFIX}({_REPOSITORY})(?:@([\w./-]+))?", text)
        if found is None:
            raise UsageError(
                f"{text}: not a repository of the model hub",
                looked_for=f"{HUB_PREFIX}OWNER/NAME or {HUB_PREFIX}OWNER/NAME@REVISION",
            )
        return cls(*found.groups())

    @classmethod
    def of_folder(cls, folder: Path) -> "HubName | None":
        """What a folder of the hub's cache holds; None: it is no such folder."""
        owner, _, name = folder.parent.parent.name.removeprefix("models--").partition("--")
        if folder.parent.name != "snapshots" or not name:
            return None
        return cls(f"{owner}/{name}", folder.name)

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{HUB_PREFIX}{self.repository}{revision}"


def check_repository(name: str) -> None:
    """Refuse what is not written like a repository of the model hub.

    Raises:
        UsageError: If it is not.
    """
    if not re.fullmatch(_REPOSITORY, name):
        raise UsageError(f"{name}: not a repository of the model hub", looked_for="OWNER/NAME")


def hub_folder(
    source: HubName, *, needed: Sequence[str], useful: Sequence[str] = (), offline: bool
) -> Path:
    """The folder in the hub's cache with files of a repository, fetched where they are not there.

    Args:
        source: The repository.
        needed: Files that it must have.
        useful: Files to fetch where it has them.
        offline: Ask nobody; use what is in the cache.

    Raises:
        InputMissingError: If files are neither in the cache nor can be fetched.
        UntrustedFileError: If a file is not the one that the hub lists.
    """
    from huggingface_hub import constants

    if re.fullmatch("[0-9a-f]{40}", source.revision or ""):
        # A commit never changes: there is nothing to ask where it is in the cache.
        with contextlib.suppress(*download_errors()), hub_offline():
            return _fetch(source, needed, ())
    offline = offline or constants.HF_HUB_OFFLINE
    cached_only = offline or not hub_answers()
    try:
        with hub_offline() if cached_only else contextlib.nullcontext():
            return _fetch(source, needed, useful)
    except download_errors() as error:
        files = " and ".join(needed)
        raise InputMissingError(
            f"{source}: {_reason(error, cached_only=cached_only, offline=offline)}",
            looked_for=f"{files} of {constants.ENDPOINT}/{source.repository}, "
            f"and in {constants.HF_HUB_CACHE}",
            next_step=f"fetch {files} where there is a network, put them into a folder and name "
            "that in place of it",
        ) from error


def _fetch(source: HubName, needed: Sequence[str], useful: Sequence[str]) -> Path:
    """The folder of files, all of one commit, whatever is pushed meanwhile."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    revision = source.revision
    for file in (*needed, *useful):
        optional = (EntryNotFoundError,) if file in useful else ()
        with contextlib.suppress(*optional):
            path = Path(
                hf_hub_download(
                    source.repository,
                    file,
                    revision=revision,
                    local_files_only=constants.HF_HUB_OFFLINE,
                )
            )
            _verify_blob(path)
            revision = path.parent.name
    return path.parent


@contextmanager
def downloads(model: str, *, source: str, offline: bool) -> Iterator[None]:
    """Let a library load weights by itself: from its cache, or from the hub if that answers.

    Asked first, because the hub's client tries again for most of a minute before it gives up.

    Args:
        model: What the weights are of, for messages.
        source: Where the library finds them: a repository of the hub or a URL.
        offline: Ask nobody; use what is in the cache.

    Raises:
        InputMissingError: If the library could not get them.
        UntrustedFileError: If they have another checksum than their publisher states.
    """
    from huggingface_hub import constants

    offline = offline or constants.HF_HUB_OFFLINE
    cached_only = offline or not hub_answers()
    try:
        if cached_only and "://" in source:
            _require_cached(source)
        with hub_offline() if cached_only else contextlib.nullcontext():
            yield
        _verify_cached(source)
    except download_errors() as error:
        if re.search(r"invalid hash value|checksum does not", str(error)):
            raise UntrustedFileError(
                f"weights of {model}: not what their publisher lists",
                looked_for=f"{source}; {' '.join(str(error).split())}",
                next_step="run this again; if it comes back, what is served there was changed",
            ) from error
        reason = _reason(error, cached_only=cached_only, offline=offline)
        raise _no_weights(model, source, reason) from error


def require(model: str, *, source: str, offline: bool) -> None:
    """Refuse weights that are not cached and cannot be fetched, without asking their library.

    Args:
        model: What the weights are of, for messages.
        source: Where they are: a repository of the hub or a URL.
        offline: Ask nobody; use what is in the cache.

    Raises:
        InputMissingError: If they are neither here nor within reach.
    """
    from huggingface_hub import constants

    offline = offline or constants.HF_HUB_OFFLINE
    try:
        _require_cached(source)
    except FileNotFoundError as error:
        if offline or not hub_answers():
            reason = _reason(error, cached_only=True, offline=offline)
            raise _no_weights(model, source, reason) from error


def _no_weights(model: str, source: str, reason: str) -> InputMissingError:
    where = source if "://" in source else f"{source.rstrip('/')} on the model hub"
    return InputMissingError(
        f"weights of {model}: {reason}",
        looked_for=f"{where}, and in {_cache(source)}",
        next_step="fetch them where there is a network and pass --weights FILE, "
        "or start from random ones with --no-pretrained",
    )


def hub_answers() -> bool:
    """Whether the model hub answers within :data:`ANSWER_SECONDS`.

    Asked through the hub's own client, so its proxy, certificates and other address are honoured,
    and on a thread, because looking up a host name knows no time limit.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        # Any answer will do; what an unreachable hub raises depends on the client's version.
        with contextlib.suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return answered.is_set()


@contextmanager
def hub_offline() -> Iterator[None]:
    """Make the hub's client answer from its cache alone, as its environment variable does."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reason(error: Exception, *, cached_only: bool, offline: bool) -> str:
    """Why files could not be had."""
    if not cached_only:
        return "cannot be loaded: " + " ".join(str(error).split())
    if offline:
        return "not in the cache, and downloads are forbidden (--offline)"
    return "not in the cache, and the model hub does not answer"


def download_errors() -> tuple[type[Exception], ...]:
    """What the hub's client and the libraries raise where a download fails."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    # That of the client's own library, which its versions do not have in common.
    return (OSError, RuntimeError, HTTPError)


def _verify_cached(source: str) -> None:
    """See that the files of a source in the caches have the checksums that their names state.

    Raises:
        UntrustedFileError: If one has another.
    """
    if "://" in source:
        path = _url_cache() / Path(source).name
        if path.is_file() and (stated := _HASH_IN_NAME.search(path.name)):
            _verify(path, stated[1])
        return
    for path in _cached_files(source):
        _verify_blob(path)


def _verify_blob(path: Path) -> None:
    """See that a file of the hub's cache is the one that the hub lists.

    The cache calls a file by its ETag, which for large files is their SHA-256. The client itself
    compares nothing but sizes.

    Raises:
        UntrustedFileError: If it is another one.
    """
    stated = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", stated):
        _verify(path.resolve(), stated)


def _verify(path: Path, stated: str) -> None:
    if not (found := sha256_file(path)).startswith(stated):
        raise UntrustedFileError(
            f"{path}: not the file that its publisher lists",
            looked_for=f"SHA-256 {stated}; found {found}",
            next_step="delete it, and run this again to fetch it anew",
        )


def _require_cached(source: str) -> None:
    """Refuse what is not cached yet: of a plain URL the libraries would fetch it in any case."""
    cached = (_url_cache() / Path(source).name,) if "://" in source else _cached_files(source)
    if not any(path.is_file() for path in cached):
        raise FileNotFoundError(source)


def _cached_files(source: str) -> list[Path]:
    """What the hub's cache holds of a repository."""
    from huggingface_hub import constants

    owner, _, rest = source.partition("/")
    repository = Path(constants.HF_HUB_CACHE) / f"models--{owner}--{rest.split('/')[0]}"
    return sorted(repository.glob("snapshots/*/*"))


def _url_cache() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _cache(source: str) -> str:
    from huggingface_hub import constants

    return str(_url_cache() if "://" in source else constants.HF_HUB_CACHE)
