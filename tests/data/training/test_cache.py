"""What comes out of a cache is what went in, for every process that has it."""

import errno
import multiprocessing
import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.core.image import Sample
from crowdcount.data.training import cache as caches
from crowdcount.data.training.augment import AugmentConfig
from crowdcount.data.training.batches import TrainingBatches
from crowdcount.data.training.cache import (
    CachedSamples,
    Room,
    SampleCache,
    make_cache,
    size_of_cache,
)
from crowdcount.errors import MemoryExhaustedError

SHAPES = [(5, 7, 0), (1, 1, 3), (48, 64, 1), (33, 31, 2)]
"""Height, width and heads."""


def sample(index, shape):
    height, width, heads = shape
    random = np.random.default_rng(index)
    return Sample(
        name=f"scene {index}",
        image=random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        points=random.uniform(0, min(height, width), (heads, 2)),
    )


def room(index, shape):
    height, width, heads = shape
    return Room(name=f"scene {index}", width=width, height=height, heads=heads)


class Scenes:
    """Samples, and a note of those that were read."""

    def __init__(self, shapes=SHAPES):
        self.shapes = shapes
        self.read = []

    @property
    def rooms(self):
        return [room(*each) for each in enumerate(self.shapes)]

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, index):
        self.read.append(index)
        return sample(index, self.shapes[index])


def assert_same(one, other):
    assert one.name == other.name
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.points, other.points)


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))


@pytest.mark.parametrize("on_disk", [False, True])
@given(shapes=st.lists(shapes, min_size=1, max_size=6), data=st.data())
def test_every_sample_comes_out_as_it_went_in(tmp_path_factory, on_disk, shapes, data):
    directory = tmp_path_factory.getbasetemp() if on_disk else None
    cache = SampleCache([room(*each) for each in enumerate(shapes)], directory=directory)
    order = data.draw(st.permutations(range(len(shapes))))
    for index in order:
        assert cache.get(index) is None
        cache.put(index, sample(index, shapes[index]))
    for index in order:
        assert_same(cache.get(index), sample(index, shapes[index]))


def test_each_sample_is_read_once():
    scenes = Scenes()
    cached = CachedSamples(scenes, SampleCache(scenes.rooms))
    assert len(cached) == len(scenes)
    for _ in range(3):
        for index, shape in enumerate(SHAPES):
            assert_same(cached[index], sample(index, shape))
    assert scenes.read == [0, 1, 2, 3]


def test_what_is_kept_cannot_be_written_to():
    scenes = Scenes()
    cached = CachedSamples(scenes, SampleCache(scenes.rooms))
    kept = [cached[3], cached[3]][1]
    for array in (kept.image, kept.points):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_a_sample_of_another_size_than_was_said_is_not_kept():
    cache = SampleCache([room(0, (5, 7, 1))])
    for other in [(7, 5, 1), (5, 7, 2), (5, 8, 1)]:
        cache.put(0, sample(0, other))
        assert cache.get(0) is None


def test_a_folder_of_the_disk_shows_nothing_of_it(tmp_path):
    cache = SampleCache([room(0, (5, 7, 1))], directory=tmp_path)
    cache.put(0, sample(0, (5, 7, 1)))
    assert list(tmp_path.iterdir()) == []


def fill(caches, index):
    """What another process does: it needs what is there, and adds to it."""
    for cache in caches:
        assert_same(cache.get(0), sample(0, SHAPES[0]))
        cache.put(index, sample(index, SHAPES[index]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_processes_share_it(tmp_path, method):
    caches = [SampleCache(Scenes().rooms, directory=directory) for directory in (None, tmp_path)]
    for cache in caches:
        cache.put(0, sample(0, SHAPES[0]))
    process = multiprocessing.get_context(method).Process(target=fill, args=(caches, 2))
    process.start()
    process.join()
    assert process.exitcode == 0
    for cache in caches:
        assert_same(cache.get(2), sample(2, SHAPES[2]))
        assert cache.get(1) is None


def test_batches_are_the_same_with_it_as_without():
    def epochs(samples):
        batches = TrainingBatches(
            samples, size=32, block=8, batch_size=2, config=AugmentConfig(), seed=1, workers=0
        )
        return [
            (batch.names, batch.images.numpy().tobytes(), batch.target.counts.numpy().tobytes())
            for epoch in (1, 2, 3)
            for batch in batches.epoch(epoch)
        ]

    # The last is cropped whole, without a copy of its own.
    shapes = [*SHAPES, (64, 64, 2)]
    scenes = Scenes(shapes)
    assert epochs(CachedSamples(scenes, SampleCache(scenes.rooms))) == epochs(Scenes(shapes))


@pytest.fixture
def free(monkeypatch):
    """Set how much memory and disk is left."""

    def set_free(*, memory, disk):
        monkeypatch.setattr(caches, "memory_left", lambda: memory)
        monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: SimpleNamespace(free=disk))

    return set_free


SIZE = size_of_cache(Scenes().rooms)


@pytest.mark.parametrize(
    ("memory", "disk", "place"),
    [
        (2 * SIZE, 0, "in memory"),
        (2 * SIZE - 1, 2 * SIZE, "on disk"),
        (2 * SIZE - 1, 2 * SIZE - 1, "too much for a cache"),
    ],
)
def test_auto_takes_at_most_half_of_what_is_free(tmp_path, free, caplog, memory, disk, place):
    free(memory=memory, disk=disk)
    with caplog.at_level("INFO", logger="crowdcount"):
        cache = make_cache(Scenes().rooms, kind="auto", directory=tmp_path)
    assert place in caplog.text
    assert (cache is None) == (place == "too much for a cache")


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_is_asked_for_takes_all_of_it_or_is_refused(tmp_path, free, kind):
    free(**{"memory": 0, "disk": 0, kind: SIZE})
    assert make_cache(Scenes().rooms, kind=kind, directory=tmp_path) is not None
    free(**{"memory": 0, "disk": 0, kind: SIZE - 1})
    with pytest.raises(MemoryExhaustedError, match=f"MiB of {kind}"):
        make_cache(Scenes().rooms, kind=kind, directory=tmp_path)


def test_off_keeps_nothing(tmp_path):
    assert make_cache(Scenes().rooms, kind="off", directory=tmp_path) is None


def test_a_disk_that_is_full_is_an_error_and_no_signal(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(caches.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        SampleCache(Scenes().rooms, directory=tmp_path)
