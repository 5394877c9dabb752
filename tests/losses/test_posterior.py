"""To whom a block belongs: against the formulas in float64, block by block."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from crowdcount.losses.count import head_posteriors

BLOCK = 8


def posterior_of(points: tuple[Tensor, ...], **changes) -> tuple[Tensor, Tensor]:
    settings = {"rows": 4, "cols": 6, "block": BLOCK, "sigma": 8.0, "background": 0.5}
    return head_posteriors(points, **settings | changes)


def by_definition(points: Tensor, *, x: float, y: float, sigma: float, margin: float) -> Tensor:
    """Posterior of every head and of the background for one block centre."""
    distances = [math.dist((x, y), point) for point in points.tolist()]
    if margin > 0:
        distances.append(margin - min(distances))
    likelihoods = [math.exp(-(d**2) / (2 * sigma**2)) for d in distances]
    if margin == 0:
        likelihoods.append(0.0)
    return torch.tensor([each / math.fsum(likelihoods) for each in likelihoods])


@given(
    seed=st.integers(0, 2**31),
    heads=st.integers(1, 9),
    sigma=st.sampled_from([4.0, 8.0, 20.0]),
    background=st.sampled_from([0.0, 0.15, 1.0]),
)
def test_agrees_with_the_definition(seed, heads, sigma, background):
    points = torch.rand(heads, 2, generator=torch.Generator().manual_seed(seed)) * 40
    posterior, real = posterior_of((points,), sigma=sigma, background=background)
    assert real.tolist() == [[True] * heads + [False]]
    for row in range(4):
        for col in range(6):
            expected = by_definition(
                points,
                x=col * BLOCK + BLOCK / 2,
                y=row * BLOCK + BLOCK / 2,
                sigma=sigma,
                margin=background * 4 * BLOCK,
            )
            assert_close(posterior[0, :, row, col], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("background", [0.0, 0.15])
@pytest.mark.parametrize("where", [20.0, -3e3, 1e6])
def test_every_block_belongs_to_somebody_however_far_away(background, where):
    points = (torch.tensor([[where, where]]), torch.zeros(0, 2), torch.full((5, 2), 30.0))
    posterior, real = posterior_of(points, background=background)
    assert real.sum(dim=1).tolist() == [1, 0, 5]
    assert_close(posterior.sum(dim=1), torch.ones(3, 4, 6))
    filling = ~real[:, :-1, None, None].expand(3, 5, 4, 6)
    assert not (posterior[:, :-1] * filling).any()


@pytest.mark.parametrize("background", [0.0, 0.15])
def test_without_heads_everything_is_background(background):
    for points in ((torch.zeros(0, 2),), (torch.zeros(0, 2), torch.ones(2, 2))):
        posterior, _ = posterior_of(points, background=background)
        assert_close(posterior[0, -1], torch.ones(4, 6))


def test_the_background_begins_half_its_distance_from_a_head():
    # At exactly D / 2 head and background are equally likely.
    posterior, _ = posterior_of((torch.tensor([[4.0, 4.0]]),), rows=1, cols=4, background=2.0)
    background = posterior[0, 1, 0]
    assert background[0] < background[1] == 0.5 < background[2] < background[3]
