"""Check a prepared data set against its manifest."""

import logging
from itertools import chain
from pathlib import Path

from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.manifest import ImageRecord, Manifest, read_manifest
from crowdcount.data.prepared.verify import folder_problems, manifest_problems, record_problems
from crowdcount.errors import BadInputError, ValidationError
from crowdcount.wording import shorten
from crowdcount.workflows.thread_map import ThreadMap

log = logging.getLogger("crowdcount")

NEXT_STEP = (
    "run the same crowdcount preprocess again, which repairs files; "
    "with --force it prepares everything anew"
)


def verify(folder: Path, *, jobs: int = 1, track: Track = untracked) -> Manifest:
    """Check that a prepared folder holds what its manifest says, and nothing else.

    Every file exists with the content that was written; every head is inside its image; block
    counts are those of the heads, and corrected counts follow from them; totals are sums; held-out
    images exist. Other files beside the manifest, such as bins, are ignored.

    Raises:
        InputMissingError: If the folder is not prepared, or its preparation was not finished.
        ValidationError: If anything differs from the manifest. The log lists all of it at debug.
    """
    threads = ThreadMap(jobs=jobs, track=track)
    try:
        manifest = read_manifest(folder)
    except BadInputError as error:
        raise ValidationError(error.message, next_step=error.next_step) from error

    def problems_of(record: ImageRecord) -> list[str]:
        return list(record_problems(record, folder=folder, manifest=manifest))

    lists = threads(problems_of, manifest.images, label=f"verify {manifest.name}")
    image_problems = list(chain.from_iterable(lists))
    problems = [
        *manifest_problems(manifest),
        *image_problems,
        *folder_problems(folder, manifest),
    ]
    for problem in problems:
        log.debug("%s: %s", folder, problem)
    if problems:
        raise ValidationError(
            f"{folder}: {len(problems)} thing{'s are' if len(problems) > 1 else ' is'} not as the "
            f"manifest says: {shorten(problems)}",
            next_step=NEXT_STEP,
        )
    return manifest
