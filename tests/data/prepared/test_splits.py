from hypothesis import given
from hypothesis import strategies as st

from crowdcount.data.prepared.splits import held_out, parted

crowds = st.dictionaries(st.text(min_size=1, max_size=6), st.integers(0, 3000), max_size=60)


@given(crowds, st.floats(0, 0.99), st.integers(0, 99))
def test_held_out_images_are_some_but_not_all(heads, fraction, seed):
    chosen = held_out(heads, fraction=fraction, seed=seed)
    assert set(chosen) <= set(heads)
    assert len(set(chosen)) == len(chosen)
    assert len(chosen) < max(len(heads), 1)
    if fraction > 0 and len(heads) >= 2:
        assert len(chosen) == min(max(round(fraction * len(heads)), 1), len(heads) - 1)


@given(crowds, st.randoms(use_true_random=False))
def test_held_out_images_do_not_depend_on_the_order(heads, random):
    shuffled = list(heads.items())
    random.shuffle(shuffled)
    assert held_out(dict(shuffled), fraction=0.2, seed=42) == held_out(heads, fraction=0.2, seed=42)


@given(st.integers(0, 99))
def test_sparse_and_dense_scenes_are_held_out_alike(seed):
    # 100 images of 0..99 heads, 10 wanted: one of each ten.
    chosen = held_out({f"{n:03}": n for n in range(100)}, fraction=0.1, seed=seed)
    assert [int(name) // 10 for name in chosen] == list(range(10))


def test_the_seed_decides_what_is_held_out():
    heads = {str(n): n for n in range(100)}
    choices = {held_out(heads, fraction=0.1, seed=seed) for seed in range(5)}
    assert len(choices) == 5


cameras = st.lists(st.integers(0, 5), min_size=60, max_size=60)


@given(crowds, cameras, st.floats(0, 0.99), st.integers(0, 99))
def test_a_group_is_held_out_whole_or_not_at_all(heads, cameras, fraction, seed):
    groups = {file: str(camera) for file, camera in zip(sorted(heads), cameras, strict=False)}
    chosen = set(held_out(heads, fraction=fraction, seed=seed, groups=groups))
    kept = set(heads) - chosen
    assert {groups[file] for file in chosen}.isdisjoint(groups[file] for file in kept)
    assert bool(chosen) == (fraction > 0 and len(set(groups.values())) > 1)
    assert kept or not heads


@given(crowds, st.floats(0, 0.99), st.integers(0, 99))
def test_groups_of_one_image_change_nothing(heads, fraction, seed):
    alone = {file: file for file in heads}
    without = held_out(heads, fraction=fraction, seed=seed)
    assert held_out(heads, fraction=fraction, seed=seed, groups=alone) == without


@given(crowds, st.integers(2, 8), st.integers(0, 99))
def test_folds_part_the_training_images_into_like_sizes(heads, folds, seed):
    parts = parted(heads, folds=folds, seed=seed)
    assert len(parts) == folds
    assert sorted(file for part in parts for file in part) == sorted(heads)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(crowds, cameras, st.integers(2, 4), st.integers(0, 99))
def test_a_group_lies_in_one_fold(heads, cameras, folds, seed):
    groups = {file: str(camera) for file, camera in zip(sorted(heads), cameras, strict=False)}
    parts = parted(heads, folds=folds, seed=seed, groups=groups)
    assert sorted(file for part in parts for file in part) == sorted(heads)
    for camera in set(groups.values()):
        assert sum(any(groups[file] == camera for file in part) for part in parts) == 1


@given(crowds, st.integers(2, 8), st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order(heads, folds, random):
    shuffled = list(heads.items())
    random.shuffle(shuffled)
    assert parted(dict(shuffled), folds=folds, seed=1) == parted(heads, folds=folds, seed=1)


def test_sparse_and_dense_scenes_are_in_every_fold():
    # 100 images of 0..99 heads in 10 folds: each has one of each ten.
    parts = parted({f"{n:03}": n for n in range(100)}, folds=10, seed=3)
    assert all([int(name) // 10 for name in part] == list(range(10)) for part in parts)


def test_the_seed_decides_the_folds():
    heads = {str(n): n for n in range(40)}
    assert len({parted(heads, folds=4, seed=seed) for seed in range(5)}) == 5
