from hypothesis import given
from hypothesis import strategies as st

from crowdcount.data.sources.split_files import groups_of


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), unique=True))
def test_groups_are_what_the_placeholder_stands_for(images):
    files = {f"cam{camera}_{k}.JPG": str(camera) for camera, k in images}
    assert groups_of([*files, "other.jpg"], "cam{group}_*.jpg") == files
