"""A damaged journal never adds, changes or doubles a record."""

import dataclasses
import json
import random

from crowdcount.data.prepared.journal import (
    Origin,
    add_record,
    journal_line,
    open_journal,
    read_earlier,
    start_journal,
)
from crowdcount.data.prepared.manifest import JOURNAL
from crowdcount.errors import BadInputError


def origin_of(manifest):
    return Origin(
        **{field.name: getattr(manifest, field.name) for field in dataclasses.fields(Origin)}
    )


def test_a_damaged_line_is_not_believed(prepared, tmp_path):
    manifest = prepared.manifest
    origin, images = origin_of(manifest), {record.name: record for record in manifest.images}
    start_journal(tmp_path, origin, [], versions=manifest.versions)
    with open_journal(tmp_path) as journal:
        for record in manifest.images:
            add_record(record, journal)
    assert read_earlier(tmp_path, origin, force=False).records == images
    whole, draw = (tmp_path / JOURNAL).read_bytes(), random.Random(3)
    lost = refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for place in draw.sample(range(len(content)), draw.randint(1, 4)):
            # Digits turn into digits, so that a line may stay JSON of the right types.
            content[place] = (
                ord(draw.choice("0123456789")) if draw.random() < 0.7 else draw.randrange(256)
            )
        (tmp_path / JOURNAL).write_bytes(content)
        try:
            records = read_earlier(tmp_path, origin, force=False).records
        except BadInputError:
            refused += 1
            continue
        assert records.items() <= images.items()
        lost += len(records) < len(images)
    assert lost > 20
    assert refused > 20


def test_a_journal_of_an_old_version_gives_its_origin_and_no_records(prepared, tmp_path):
    manifest = prepared.manifest
    origin = origin_of(manifest)
    start_journal(tmp_path, origin, manifest.images, versions=manifest.versions)
    lines = [line.rpartition("\t")[0] for line in (tmp_path / JOURNAL).read_text().splitlines()]
    (tmp_path / JOURNAL).write_text("\n".join(lines) + "\n")
    assert len(list(map(json.loads, lines))) == 1 + len(manifest.images)
    assert read_earlier(tmp_path, origin, force=False).records == {}


def test_a_line_is_json_and_its_hash():
    text, _, digest = journal_line({"a": 1}).rstrip("\n").partition("\t")
    assert json.loads(text) == {"a": 1}
    assert len(digest) == 64
