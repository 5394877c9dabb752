"""Downloads by the libraries, which without a network fail at once and say what to do."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crowdcount.errors import InputMissingError

ANSWER_SECONDS = 3.0
"""How long the model hub may take to answer before it counts as out of reach."""


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
    """
    cached_only = offline or not hub_answers()
    try:
        if cached_only and "://" in source:
            _require_cached(source)
        with hub_offline() if cached_only else contextlib.nullcontext():
            yield
    except (OSError, RuntimeError) as error:
        if not cached_only:
            reason = "cannot be loaded: " + " ".join(str(error).split())
        elif offline:
            reason = "not in the cache, and downloads are forbidden (--offline)"
        else:
            reason = "not in the cache, and the model hub does not answer"
        raise InputMissingError(
            f"weights of {model}: {reason}",
            looked_for=f"{source.rstrip('/')} on the model hub, and in {_cache(source)}",
            next_step="fetch them where there is a network and pass --weights FILE, "
            "or start from random ones with --no-pretrained",
        ) from error


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


def _require_cached(url: str) -> None:
    """Refuse a plain URL that is not cached yet: the libraries would fetch it in any case."""
    if not (_url_cache() / Path(url).name).is_file():
        raise FileNotFoundError(url)


def _url_cache() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _cache(source: str) -> str:
    from huggingface_hub import constants

    return str(_url_cache() if "://" in source else constants.HF_HUB_CACHE)
