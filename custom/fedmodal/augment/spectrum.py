"""Spectrum: low-frequency amplitudes jittered and mixed within the batch, the phase kept.

After Yang and Soatto, "FDA: Fourier domain adaptation for semantic segmentation" (CVPR 2020, arXiv
2004.05498), and Liu et al., "FedDG: federated domain generalization on medical image segmentation via
episodic learning in continuous frequency space" (CVPR 2021, arXiv 2103.06030).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from monai.config import KeysCollection
from torch import Tensor
from torch.fft import irfftn, rfftn

from fedmodal.augment.monai_transforms import RandArm, RandArmd
from fedmodal.augment.samples import change, check_fit, checked_probability, per_sample


@dataclass(frozen=True)
class SpectrumDraw:
    """Every random number of one call, on the CPU.

    Attributes:
        spatial: the images' spatial sizes.
        half_widths: (N,) integers b: the band holds the frequencies with at most b cycles an image
            along every axis.
        shares: (N,), the partner's part in the amplitude.
        partners: (N,) the sample that lends its amplitude; in a batch of one, itself.
        log_factors: (N, 2B + 1, ..., 2B + 1), the logarithm of the jitter for frequencies -B..B along
            every axis, B the largest b possible; even, so that the result is real.
        applied: (N,) bool; the other samples stay as they are.
    """

    spatial: tuple[int, ...]
    half_widths: Tensor
    shares: Tensor
    partners: Tensor
    log_factors: Tensor
    applied: Tensor


class Spectrum(torch.nn.Module):
    """Frequency-domain augmentation of batches (N, C, *spatial), 2D or 3D; it has no parameters.

    In the low band the amplitude A of a sample becomes exp(s z) ((1 - r) A + r A'), with A' that of
    another sample of the batch; its phase and all other frequencies stay. A coefficient of 0 has no
    phase and stays 0. The output is not rescaled: the network standardizes its input.

    Published: the band's half-width floor(min(spatial) L) and the phase kept (FDA, with r = 1 and L of
    0.01, 0.05 and 0.09); r from U(0, 1) (FedDG). Both take A' from another domain, whose spectra
    would have to be sent around: here nothing leaves the site. Ours: the partner is from the same
    batch, L from U(0.01, 0.09), and the jitter, with s from U(0, `jitter`) and z from N(0, 1) for each
    frequency, reaches amplitudes that no image of the site has; 3D. All is drawn for each sample, the
    same for its channels.

    Args:
        band: smallest and largest L, 0 <= L < 0.5.
        jitter: largest standard deviation of the logarithm of the factor.
        mix: largest r, from 0 to 1.
        prob: probability that a sample is changed.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        band: tuple[float, float] = (0.01, 0.09),
        jitter: float = 0.5,
        mix: float = 1.0,
        prob: float = 1.0,
    ) -> None:
        super().__init__()
        low, high = band
        if not 0 <= low <= high < 0.5:
            raise ValueError(f"band needs 0 <= low <= high < 0.5, got {low} and {high}")
        if not 0 <= jitter < float("inf"):
            raise ValueError(f"jitter must be 0 or more, got {jitter}")
        if not 0 <= mix <= 1:
            raise ValueError(f"mix must be from 0 to 1, got {mix}")
        self.band = (low, high)
        self.jitter = jitter
        self.mix = mix
        self.prob = checked_probability(prob)

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> SpectrumDraw:
        """Draw for a batch of shape (N, C, *spatial) from a CPU generator.

        The numbers are the same whatever device the batch is on.
        """
        samples, _, *spatial = batch_shape
        low, high = self.band
        widths = low + (high - low) * torch.rand(samples, generator=generator, dtype=torch.float64)
        offsets = torch.randint(1, max(samples, 2), (samples,), generator=generator)
        deviations = self.jitter * torch.rand(samples, 1, generator=generator)
        size = [2 * int(min(spatial) * high) + 1] * len(spatial)
        # The lattice of frequencies read backwards is its mirror image; the mean is in the middle.
        half = deviations * torch.randn(samples, prod(size) // 2 + 1, generator=generator)
        log_factors = torch.cat([half, half[:, :-1].flip(1)], dim=1)
        return SpectrumDraw(
            spatial=tuple(spatial),
            half_widths=(min(spatial) * widths).long(),
            shares=self.mix * torch.rand(samples, generator=generator),
            partners=(torch.arange(samples) + offsets) % samples,
            log_factors=log_factors.view(samples, *size),
            applied=torch.rand(samples, generator=generator) < self.prob,
        )

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw and apply; see `apply_spectrum`."""
        return apply_spectrum(images, self.draw(images.shape, generator))


def apply_spectrum(images: Tensor, draw: SpectrumDraw) -> Tensor:
    """Change the amplitudes of a batch, without gradient, in float32 even under autocast.

    Args:
        images: (N, C, *spatial), floating point; not changed.
        draw: drawn for the same N and spatial sizes.

    Returns:
        A new tensor of the images' shape, type and device.

    Raises:
        ValueError: the draw is for another kind of batch.
    """
    check_fit(
        "(samples, *spatial sizes)",
        (len(draw.shares), *draw.spatial),
        (images.shape[0], *images.shape[2:]),
    )
    return change(images, draw.applied, lambda plain: _add_amplitudes(plain, draw))


def _add_amplitudes(images: Tensor, draw: SpectrumDraw) -> Tensor:
    """The images plus what the band's new amplitudes change in them."""
    axes = tuple(range(2, images.ndim))
    reach = draw.log_factors.shape[-1] // 2
    spectrum = rfftn(images, dim=axes)
    every = slice(None)
    band: tuple[slice | Tensor, ...] = (every, every, *_places(draw.spatial, reach, images.device))
    old = spectrum[band].abs()
    mixed = torch.lerp(old, old[draw.partners.to(images.device)], per_sample(draw.shares, images))
    new = mixed * draw.log_factors[:, None, ..., reach:].exp().to(images)
    inside = _inside(draw.half_widths, reach, len(axes))[:, None].to(images.device)
    changes = torch.zeros_like(spectrum)
    changes[band] = torch.where(inside, torch.sgn(spectrum[band]) * (new - old), 0)
    added: Tensor = irfftn(changes, s=draw.spatial, dim=axes)
    return images + added


def _places(spatial: Sequence[int], reach: int, device: torch.device) -> tuple[Tensor, ...]:
    """Where a half spectrum holds the frequencies -reach..reach; along its last axis, 0..reach."""
    cycles = torch.arange(-reach, reach + 1, device=device)
    axes = [*(cycles % size for size in spatial[:-1]), cycles[reach:]]
    places: tuple[Tensor, ...] = torch.meshgrid(*axes, indexing="ij")
    return places


def _inside(half_widths: Tensor, reach: int, dims: int) -> Tensor:
    """Which of those frequencies are in each sample's band: (N, 2 reach + 1, ..., reach + 1) bool."""
    cycles = torch.arange(-reach, reach + 1).abs()
    largest = torch.stack(torch.meshgrid(*[cycles] * (dims - 1), cycles[reach:], indexing="ij")).amax(0)
    inside: Tensor = largest <= half_widths.reshape(-1, *[1] * dims)
    return inside


class RandSpectrum(RandArm[SpectrumDraw]):
    """`Spectrum` as a MONAI transform on one channel-first image; see `RandArm`.

    One image has no partner: its amplitudes are jittered, not mixed.

    Args:
        prob: probability that an image is changed.
        band: see `Spectrum`.
        jitter: see `Spectrum`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self, prob: float = 1.0, *, band: tuple[float, float] = (0.01, 0.09), jitter: float = 0.5
    ) -> None:
        super().__init__(Spectrum(band=band, jitter=jitter), apply_spectrum, prob)


class RandSpectrumd(RandArmd):
    """`RandSpectrum` on the images of a dictionary, the same draw for all keys; see `RandArmd`.

    Amplitudes are jittered, not mixed, not even between the keys.

    Args:
        keys: the images; never name a label map here.
        prob: probability that the images of a dictionary are changed.
        band: see `Spectrum`.
        jitter: see `Spectrum`.
        allow_missing_keys: do not raise for a key that the dictionary lacks.

    Raises:
        ValueError: an argument is out of its range, or, at the call, the images differ in
            spatial size.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        *,
        band: tuple[float, float] = (0.01, 0.09),
        jitter: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandSpectrum(band=band, jitter=jitter), prob, allow_missing_keys)
