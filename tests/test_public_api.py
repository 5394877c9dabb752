"""The names of the public API are there, and asking for none of them loads torch."""

import subprocess
import sys

import pytest

import crowdcount


@pytest.mark.parametrize("name", crowdcount.__all__)
def test_every_public_name_can_be_had(name):
    assert getattr(crowdcount, name) is not None


def test_no_public_name_is_left_out():
    homes = set(crowdcount._HOMES)
    assert homes | {"__version__"} == set(crowdcount.__all__) == set(dir(crowdcount))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'cuont'"):
        _ = crowdcount.cuont


def test_importing_the_package_loads_no_torch():
    code = "import sys, crowdcount; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
