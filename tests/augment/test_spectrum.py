from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmodal.augment.spectrum import Spectrum, SpectrumDraw, apply_spectrum

SHAPES = [(2, 1, 16, 16), (3, 2, 15, 18), (1, 1, 17, 12), (2, 1, 12, 13, 14)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed))


def fourier(images: Tensor) -> np.ndarray:
    return np.fft.fftn(images.double().numpy(), axes=range(2, images.ndim))


def in_band(draw: SpectrumDraw) -> np.ndarray:
    """(N, 1, *spatial): at most b cycles an image along every axis."""
    axes = [np.abs(np.fft.fftfreq(size, 1 / size)).round() for size in draw.spatial]
    largest = np.maximum.reduce(np.meshgrid(*axes, indexing="ij"))
    return np.stack([largest <= int(width) for width in draw.half_widths])[:, None]


def written_out(images: np.ndarray, draw: SpectrumDraw, sample: int, channel: int) -> np.ndarray:
    """One channel of one result, frequency by frequency from the definition, in float64."""
    image, partner = images[sample, channel], images[int(draw.partners[sample]), channel]
    share, width = float(draw.shares[sample]), int(draw.half_widths[sample])
    reach = draw.log_factors.shape[-1] // 2
    places, result = np.indices(image.shape), image.astype(complex)
    for cycles in product(range(-width, width + 1), repeat=image.ndim):
        turns = sum(k * p / size for k, p, size in zip(cycles, places, image.shape, strict=True))
        old, other = ((values * np.exp(-2j * np.pi * turns)).sum() for values in (image, partner))
        factor = np.exp(float(draw.log_factors[(sample, *(k + reach for k in cycles))]))
        new = factor * ((1 - share) * abs(old) + share * abs(other)) * np.exp(1j * np.angle(old))
        result = result + (new - old) * np.exp(2j * np.pi * turns) / image.size
    np.testing.assert_allclose(result.imag, 0, atol=1e-9)
    return result.real


@pytest.mark.parametrize("band", [(0.0, 0.05), (0.1, 0.3), (0.49, 0.499)])
@pytest.mark.parametrize("shape", [(2, 1, 8, 7), (3, 2, 7, 10), (1, 1, 8, 8), (2, 1, 5, 4, 6)])
def test_agrees_with_the_definition(shape: tuple[int, ...], band: tuple[float, float]) -> None:
    images = 2 * batch(*shape) - 0.7  # MRI holds negative values too
    draw = Spectrum(band=band).draw(shape, seeded(3))
    result = apply_spectrum(images, draw)
    for sample, channel in np.ndindex(shape[:2]):
        expected = written_out(images.double().numpy(), draw, sample, channel)
        np.testing.assert_allclose(result[sample, channel].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_phase_is_kept_and_amplitude_outside_the_band(shape: tuple[int, ...]) -> None:
    images = batch(*shape)
    draw = Spectrum(band=(0.1, 0.3)).draw(shape, seeded())
    before, after = fourier(images), fourier(apply_spectrum(images, draw))
    ratios, inside = after / before, np.broadcast_to(in_band(draw), before.shape)
    assert np.abs(before).min() > 0.01  # so that every phase counts
    assert np.abs(np.angle(ratios)).max() < 1e-3
    np.testing.assert_allclose(np.abs(after)[~inside], np.abs(before)[~inside], rtol=1e-3, atol=1e-4)
    assert np.abs(np.log(np.abs(ratios[inside]))).mean() > 0.02


def waves(first: float, second: float) -> Tensor:
    """(2, 1, 8, 16): waves of one cycle along the last axis, with these amplitudes, half a cycle apart."""
    wave = torch.cos(2 * torch.pi * torch.arange(16) / 16).expand(8, 16)
    return torch.stack([first * wave, -second * wave])[:, None]


def test_two_waves_mixed_by_hand() -> None:
    draw = SpectrumDraw(
        spatial=(8, 16),
        half_widths=torch.tensor([1, 1]),
        shares=torch.tensor([0.25, 0.5]),
        partners=torch.tensor([1, 0]),
        log_factors=torch.zeros(2, 3, 3),
        applied=torch.tensor([True, True]),
    )
    mixed = waves(0.75 * 2 + 0.25 * 6, 0.5 * 6 + 0.5 * 2)
    torch.testing.assert_close(apply_spectrum(waves(2, 6), draw), mixed, rtol=0, atol=1e-5)
    doubled = replace(draw, log_factors=torch.full((2, 3, 3), 2.0).log())
    torch.testing.assert_close(apply_spectrum(waves(2, 6), doubled), 2 * mixed, rtol=0, atol=1e-5)
    only_the_mean = replace(draw, half_widths=torch.tensor([0, 1]))
    torch.testing.assert_close(apply_spectrum(waves(2, 6), only_the_mean)[0], waves(2, 6)[0])


def test_without_jitter_and_partner_nothing_changes() -> None:
    one, two = batch(1, 1, 16, 16), batch(2, 1, 16, 16)
    assert torch.equal(Spectrum(jitter=0)(one, seeded()), one)
    assert not torch.equal(Spectrum()(one, seeded()), one)
    assert torch.equal(Spectrum(jitter=0, mix=0)(two, seeded()), two)
    assert not torch.equal(Spectrum(jitter=0)(two, seeded()), two)


def test_a_sample_sees_its_partner_only() -> None:
    images, others = batch(4, 1, 16, 16), 50 * batch(4, 1, 16, 16, seed=99)
    draw = Spectrum().draw(images.shape, seeded())
    partner = int(draw.partners[2])
    others[2], others[partner] = images[2], images[partner]
    assert torch.equal(apply_spectrum(others, draw)[2], apply_spectrum(images, draw)[2])
    others[partner] = 0
    assert not torch.equal(apply_spectrum(others, draw)[2], apply_spectrum(images, draw)[2])


def test_a_sample_left_alone_still_lends_its_amplitude() -> None:
    draw = replace(Spectrum().draw((2, 1, 16, 16), seeded()), applied=torch.tensor([True, False]))
    images = batch(2, 1, 16, 16)
    result = apply_spectrum(images, draw)
    both = apply_spectrum(images, replace(draw, applied=torch.tensor([True, True])))
    assert torch.equal(result[0], both[0])
    assert torch.equal(result[1], images[1])


def test_partners_are_the_others_equally_often() -> None:
    generator, arm = seeded(), Spectrum()
    partners = torch.stack([arm.draw((4, 1, 8, 8), generator).partners for _ in range(600)])
    counts = torch.stack([torch.bincount(column, minlength=4) for column in partners.T])
    assert counts.diagonal().tolist() == [0, 0, 0, 0]
    assert (counts[~torch.eye(4, dtype=torch.bool)] - 200).abs().max() < 52  # 4.5 standard deviations
    assert arm.draw((1, 1, 8, 8), generator).partners.tolist() == [0]


def test_half_widths_follow_the_shorter_side() -> None:
    widths = Spectrum().draw((2000, 1, 200, 128), seeded()).half_widths
    assert widths.unique().tolist() == list(range(1, 12))  # floor of 1.28 to 11.52
    share = float((widths == 5).float().mean())
    assert share == pytest.approx(1 / 10.24, abs=0.03)
    exact = Spectrum(band=(0.05, 0.05)).draw((3, 1, 100, 120), seeded())
    assert exact.half_widths.tolist() == [5, 5, 5]
    assert exact.log_factors.shape == (3, 11, 11)


@pytest.mark.parametrize("spatial", [(64, 64), (32, 32, 32)])
def test_the_jitter_is_even_and_normal_with_a_uniform_spread(spatial: tuple[int, ...]) -> None:
    factors = Spectrum(jitter=0.8).draw((1000, 1, *spatial), seeded()).log_factors
    assert torch.equal(factors, factors.flip(tuple(range(1, factors.ndim))))
    assert abs(float(factors.mean())) < 0.02
    assert float(factors.std()) == pytest.approx(0.8 / 3**0.5, rel=0.05)  # mean square of U(0, 0.8)
    spreads = factors.flatten(1).std(1)
    assert float(spreads.min()) < 0.05
    assert 0.75 < float(spreads.max()) < 1.3


def test_shares_are_uniform_up_to_mix() -> None:
    shares = Spectrum(mix=0.5).draw((4000, 1, 8, 8), seeded()).shares
    ranks = 0.5 * (torch.arange(4000) + 0.5) / 4000
    assert (shares.sort().values - ranks).abs().max() < 0.015  # Kolmogorov-Smirnov


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"band": (-0.1, 0.1)}, "band"),
        ({"band": (0.2, 0.1)}, "band"),
        ({"band": (0.1, 0.5)}, "band"),
        ({"jitter": -0.1}, "jitter"),
        ({"jitter": float("inf")}, "jitter"),
        ({"mix": 1.1}, "mix must be from 0 to 1"),
        ({"mix": float("nan")}, "mix must be from 0 to 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spectrum(**options)
