"""Batches depend on seed, epoch and position alone: not on workers, nor on where one begins."""

import dataclasses
import os
import signal
import time

import numpy as np
import pytest
import torch

from crowdcount.core.image import Sample
from crowdcount.data.training.augment import AugmentConfig
from crowdcount.data.training.batches import FixedBatches, TrainingBatches
from crowdcount.errors import BadInputError, WorkerEndedError

IMAGES = 10


class Scenes:
    """Ten images of noise with one head each, and a note of those that were read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        self.read.append(index)
        random = np.random.default_rng(index)
        return Sample(
            name=f"{index}",
            image=random.integers(0, 256, (48, 64, 3), dtype=np.uint8),
            points=random.uniform(0, 48, (1, 2)),
        )


def batches(scenes=None, *, workers=0, seed=1, batch_size=4, crops_per_image=1):
    return TrainingBatches(
        scenes or Scenes(),
        size=32,
        block=8,
        batch_size=batch_size,
        config=AugmentConfig(),
        seed=seed,
        crops_per_image=crops_per_image,
        workers=workers,
    )


def content(epoch):
    """What a network would see of an epoch."""
    return [(each.names, each.images.numpy().tobytes(), each.target.counts.sum()) for each in epoch]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_rest_of_an_epoch_is_the_same_from_wherever_one_begins(workers, skip):
    whole = [content(batches().epoch(number)) for number in (1, 2)]
    assert [len(epoch) for epoch in whole] == [3, 3]
    assert whole[0] != whole[1]
    some = batches(workers=workers)
    assert content(some.epoch(1, skip=skip)) == whole[0][skip:]
    assert content(some.epoch(2)) == whole[1]


def test_what_is_left_out_is_not_read():
    scenes = Scenes()
    list(batches(scenes).epoch(1, skip=2))
    assert len(scenes.read) == IMAGES - 2 * 4


def test_every_epoch_has_every_image_once():
    for number in (1, 2):
        names = [name for each in batches().epoch(number) for name in each.names]
        assert sorted(names, key=int) == [str(index) for index in range(IMAGES)]


@pytest.mark.parametrize("crops", [2, 3])
def test_several_crops_of_an_image_differ_and_follow_one_another(crops):
    once, often = batches(), batches(crops_per_image=crops)
    assert len(often) == -(-IMAGES * crops // 4)
    names, pixels = [], []
    for batch in often.epoch(1):
        names += batch.names
        pixels += [each.numpy().tobytes() for each in batch.images]
    first = [name for batch in once.epoch(1) for name in batch.names]
    assert names == [name for name in first for _ in range(crops)]
    assert len(set(pixels)) == IMAGES * crops
    # The first crop of each image is the one it gives alone.
    alone = [each.numpy().tobytes() for batch in once.epoch(1) for each in batch.images]
    assert pixels[::crops] == alone


@pytest.mark.parametrize("skip", [1, 4])
def test_several_crops_of_an_image_go_on_from_wherever_one_begins(skip):
    # Three crops of an image and four in a batch: an image may go on in the next batch.
    whole = content(batches(crops_per_image=3).epoch(2))
    assert content(batches(crops_per_image=3).epoch(2, skip=skip)) == whole[skip:]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_generator_of_dropout_is_not_moved(workers):
    before = torch.get_rng_state()
    list(batches(workers=workers).epoch(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_fixed_batches_are_the_same_in_every_epoch_and_all_there():
    crops = [Scenes()[index] for index in range(5)]
    fixed = FixedBatches(crops, block=8, batch_size=2)
    first = content(fixed.epoch(1))
    assert len(fixed) == 3
    assert [names for names, _, _ in first] == [("0", "1"), ("2", "3"), ("4",)]
    assert content(fixed.epoch(7)) == first
    assert content(fixed.epoch(2, skip=1)) == first[1:]
    for crop, pixels in zip(crops, np.concatenate([b.images for b in fixed.epoch(1)]), strict=True):
        assert np.array_equal(np.rint(pixels.transpose(1, 2, 0) * 255), crop.image)


class Unsendable(str):
    """A name that cannot be sent to another process, as a batch where /dev/shm is full."""

    def __reduce_ex__(self, protocol):
        raise RuntimeError("unable to allocate shared memory")


class UnsendableScenes(Scenes):
    def __getitem__(self, index):
        return dataclasses.replace(super().__getitem__(index), name=Unsendable(index))


class DeadlyScenes(Scenes):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("scenes", [UnsendableScenes(), DeadlyScenes()])
def test_the_end_of_a_worker_is_an_error_within_seconds(scenes):
    began = time.monotonic()
    with pytest.raises(WorkerEndedError, match="a process that prepares batches ended"):
        list(batches(scenes, workers=1).epoch(1))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("kind", [BadInputError, EOFError, RuntimeError])
def test_other_errors_of_a_worker_stay_what_they_are(kind):
    class Broken(Scenes):
        def __getitem__(self, index):
            raise kind("points of image 3 are damaged")

    with pytest.raises(kind, match="image 3"):
        list(batches(Broken(), workers=1).epoch(1))
