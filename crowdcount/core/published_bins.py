"""Published tables of bins by name, each with its source.

The averages of the r = 8 tables of nwpu, qnrf and jhu were computed at other image sizes than the
published preprocessing uses; the published checkpoints were trained with them nevertheless.
"""

from collections.abc import Iterable

from crowdcount.core.bins import WrittenBins

CLIP_EBC = (
    'Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281; table of the code, commit b52a594'
)
ZIP = "ZIP, the successor of CLIP-EBC; table of the code, commit bada31d, starts only"


def _clip_ebc(
    name: str, *, block: int, starts: Iterable[int], averages: tuple[float, ...]
) -> WrittenBins:
    """Build a table whose last bins have published averages; the others hold one count each."""
    edges = tuple(starts)
    single = tuple(float(start) for start in edges[: len(edges) - len(averages)])
    return WrittenBins(
        name=name, starts=edges, values=(*single, *averages), block=block, source=CLIP_EBC
    )


def _zip(name: str, *, block: int, starts: Iterable[int]) -> WrittenBins:
    return WrittenBins(name=name, starts=tuple(starts), block=block, source=ZIP)


_FINE_R8 = {
    "sha": {2: 2.24479, 4: 4.29992},
    "shb": {2: 2.15171, 4: 4.41009},
    "nwpu": {2: 2.10737, 4: 4.21931},
    "qnrf": {2: 2.09296, 4: 4.21937, 11: 11.0},
    "jhu": {2: 2.18589, 4: 4.24058},
}
"""Average of the last bin of the fine tables for blocks of 8 pixels, by data set and m."""

# fmt: off
_TABLES = (
    *(
        _clip_ebc(f"{data}-r8-t{m}", block=8, starts=range(m + 1), averages=(average,))
        for data, averages in _FINE_R8.items()
        for m, average in averages.items()
    ),
    _clip_ebc("qnrf-r16-t8-fine", block=16, starts=range(9), averages=(9.23349,)),
    _clip_ebc(
        "qnrf-r16-t8-dynamic", block=16, starts=(0, 1, 2, 3, 4, 6, 8),
        averages=(4.29278, 6.31441, 9.23349),
    ),
    _clip_ebc(
        "qnrf-r16-t8-coarse", block=16, starts=(0, 1, 3, 5, 7),
        averages=(1.14978, 3.27641, 5.30609, 8.11466),
    ),
    _clip_ebc("qnrf-r32-t19-fine", block=32, starts=range(20), averages=(23.01897,)),
    _clip_ebc(
        "qnrf-r32-t19-dynamic", block=32, starts=(*range(10), 10, 12, 14, 16, 18),
        averages=(10.42903, 12.43320, 14.43341, 16.43521, 21.93548),
    ),
    _clip_ebc(
        "qnrf-r32-t19-coarse", block=32, starts=(0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19),
        averages=(
            1.23498, 3.36108, 5.40298, 7.41406, 9.42356, 11.43094, 13.43244, 15.43697, 17.43759,
            23.01897,
        ),
    ),
    _zip("zip-r8", block=8, starts=range(5)),
    _zip("zip-sha-r16", block=16, starts=(*range(11), 11, 13, 15)),
    _zip("zip-shb-r16", block=16, starts=range(10)),
    _zip("zip-qnrf-r16", block=16, starts=(*range(11), 11, 13)),
    _zip("zip-nwpu-r16", block=16, starts=range(11)),
)
# fmt: on

PUBLISHED_BINS: dict[str, WrittenBins] = {table.name: table for table in _TABLES}
"""Tables by ``<data>-r<block side>-t<m>``, m of the label correction; ZIP's begin with ``zip-``."""
