"""The command ``models push``: upload a checkpoint and its card to the model hub."""

import dataclasses
import logging
import tempfile
from pathlib import Path

from crowdcount.errors import CrowdCountError, InputMissingError, UsageError
from crowdcount.files import write_text
from crowdcount.models.checkpoints.hub import (
    HubName,
    check_repository,
    download_errors,
    hub_answers,
)
from crowdcount.models.checkpoints.names import (
    CONFIG_NAME,
    README_NAME,
    WEIGHTS_NAME,
    ResolvedCheckpoint,
)
from crowdcount.version import __version__
from crowdcount.workflows.card import ShownCheckpoint, card_lines, pack, read_card

log = logging.getLogger("crowdcount")

PUSHED = (CONFIG_NAME, WEIGHTS_NAME, README_NAME)
"""The files of a repository."""

LICENCES = {
    "MIT": "mit",
    "Apache 2.0": "apache-2.0",
    "BSD 3-Clause": "bsd-3-clause",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
}
"""The hub's names of licences on a card. Other terms are ``other`` there."""


def push_checkpoint(
    checkpoint: ResolvedCheckpoint, repository: str, *, private: bool = False, dry_run: bool = False
) -> str:
    """Upload a checkpoint with its card to the model hub as one commit; other files there stay.

    Weights keep their stored types; paths of this machine are removed.

    Args:
        checkpoint: The checkpoint.
        repository: Target, as ``OWNER/NAME``; created if it does not exist.
        private: Create a repository that only its owner sees.
        dry_run: Upload nothing.

    Returns:
        The name of the uploaded checkpoint, with the commit; for a dry run the README.

    Raises:
        UsageError: If the name has another form, or the repository should be private and is public.
        InputMissingError: If there is no checkpoint, no token, or no hub that answers.
        BadInputError: If the checkpoint is damaged.
        CrowdCountError: If the hub refuses.
    """
    check_repository(repository)
    if not dry_run:
        _check_reachable()
    log.info("model %s", checkpoint)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "pushed"
        pack(checkpoint.path, out, half="float16" in read_card(checkpoint.path).stored_as)
        write_text(out / README_NAME, readme(read_card(out), repository))
        if not dry_run:
            return str(_upload(out, repository, private=private))
        for name in PUSHED:
            log.info("to be pushed: %s, %.1f kB", name, (out / name).stat().st_size / 1e3)
        return (out / README_NAME).read_text(encoding="utf-8")


def readme(checkpoint: ShownCheckpoint, repository: str) -> str:
    """Return the README.md of a repository: metadata for the hub's search, and the card."""
    from huggingface_hub import ModelCardData

    text = checkpoint.description.card.text
    metadata = ModelCardData(
        library_name="crowdcount",
        license=None if text is None else LICENCES.get(text.licence.strip(), "other"),
        tags=["crowd-counting", checkpoint.description.model.backbone],
    )
    # Indented, not fenced: no text of a card can end it.
    lines = card_lines(dataclasses.replace(checkpoint, folder=Path(repository)))
    card = "\n".join(f"    {line}" for line in lines)
    title = "" if text is None else f"{text.title}\n\n"
    return (
        f"---\n{metadata.to_yaml()}\n---\n\n# {checkpoint.name}\n\n{title}"
        "```sh\npip install crowdcount-ebc\n"
        f"crowdcount predict photo.jpg --checkpoint {HubName(repository)}\n```\n\n{card}\n"
    )


def _check_reachable() -> None:
    """Check that there is a token and that the hub answers."""
    from huggingface_hub import constants, get_token

    if get_token() is None:
        raise InputMissingError(
            "no token of the model hub",
            looked_for=f"HF_TOKEN, and {constants.HF_TOKEN_PATH}",
            next_step="hf auth login, or set HF_TOKEN to one that may write; --dry-run needs none",
        )
    if not hub_answers():
        raise InputMissingError(
            "the model hub does not answer",
            looked_for=f"{constants.ENDPOINT}"
            f"{', but HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else ''}",
            next_step="push where there is a network; --dry-run needs none",
        )


def _upload(folder: Path, repository: str, *, private: bool) -> HubName:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    files = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in PUSHED
    ]
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UsageError(
                f"{repository}: already exists and is public",
                next_step="make it private on the hub, name another, or leave out --private",
            )
        commit = api.create_commit(
            repository, files, commit_message=f"Model, by crowdcount {__version__}"
        )
    except download_errors() as error:
        raise CrowdCountError(
            f"{HubName(repository)}: cannot be pushed: {' '.join(str(error).split())}",
            next_step="see that the name is right and that the token may write there",
        ) from error
    return HubName(repository, commit.oid)
