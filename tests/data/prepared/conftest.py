import json
from dataclasses import asdict

import pytest

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import MANIFEST
from tests.prepared_sets import manifest


@pytest.fixture
def written(tmp_path):
    def write(*images, held_out=()):
        text = json.dumps(asdict(manifest(*images, held_out=held_out)))
        (tmp_path / MANIFEST).write_text(text)
        return PreparedDataset.open(tmp_path)

    return write
