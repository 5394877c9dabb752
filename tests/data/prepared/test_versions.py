from hypothesis import given
from hypothesis import strategies as st

from crowdcount.data.prepared.versions import joined_versions, versions_now
from crowdcount.version import __version__

versions = st.dictionaries(
    st.sampled_from(["pillow", "numpy", "zlib"]),
    st.lists(st.sampled_from("123"), unique=True, max_size=3).map(lambda each: tuple(sorted(each))),
)


@given(versions, versions)
def test_joining_forgets_nothing_and_has_no_order(one, other):
    joined = joined_versions(one, other)
    assert joined == joined_versions(other, one)
    assert joined_versions(joined, one) == joined
    for name in {*one, *other}:
        assert set(joined[name]) == {*one.get(name, ()), *other.get(name, ())}


def test_every_version_is_one_and_is_known():
    now = versions_now()
    assert now["crowdcount"] == (__version__,)
    assert all(len(each) == 1 and each[0] for each in now.values())
