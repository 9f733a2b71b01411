"""Base augmentation, the same for every arm: geometry on images and labels, intensity on images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, radians
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from fedmodal.augment.warp import GeometryDraw, along_axis, apply_geometry, broadcast

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Identity:
    """The arm without an intensity augmentation: the base augmentation alone."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the images as they are."""
        return images


class BaseAugmentationConfig(BaseModel):
    """Ranges and probabilities; every draw is per sample, an effect not drawn leaves no trace.

    Attributes:
        affine_prob: probability of the next four together.
        rotation: largest angle in degrees; in 3D of each part of the rotation vector. Voxels are
            taken as cubes.
        scale: smallest and largest factor, log-uniform, the same along all axes.
        shear: largest shift of one axis per voxel along another.
        translation: largest shift as a part of the image, along each axis.
        mirror_prob: probability of a mirror image, for each axis along which the task allows it.
        elastic_prob: probability of an elastic deformation by cubic B-splines.
        elastic_spacing: distance of the control points as a part of the image.
        elastic_magnitude: largest shift of a control point as a part of that distance; below 0.4 a
            cubic B-spline cannot fold (Choi and Lee, Graphical Models 2000).
        gamma_prob: probability of a gamma curve.
        gamma: smallest and largest exponent, log-uniform.
        contrast_prob: probability of a change of contrast and brightness.
        contrast: smallest and largest factor on the distance to the image's mean, log-uniform.
        brightness: largest value added or taken away.
        noise_prob: probability of Gaussian noise.
        noise: largest standard deviation, in parts of the intensity range.
        blur_prob: probability of a Gaussian blur.
        blur: smallest and largest standard deviation of the blur, in voxels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    affine_prob: Probability = 0.5
    rotation: Annotated[float, Field(ge=0, le=180)] = 10
    scale: Range = (0.9, 1.1)
    shear: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    translation: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    mirror_prob: Probability = 0.5
    elastic_prob: Probability = 0.2
    elastic_spacing: Annotated[float, Field(gt=0, le=1)] = 1 / 6
    elastic_magnitude: Annotated[float, Field(ge=0, lt=0.4)] = 0.25
    gamma_prob: Probability = 0.15
    gamma: Range = (0.7, 1.5)
    contrast_prob: Probability = 0.15
    contrast: Range = (0.75, 1.25)
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.1
    noise_prob: Probability = 0.15
    noise: Annotated[float, Field(ge=0, le=1)] = 0.03
    blur_prob: Probability = 0.0
    blur: Range = (0.5, 1.0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("scale", "gamma", "contrast", "blur"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} needs low <= high, got {low} and {high}")
        return self


@dataclass(frozen=True)
class IntensityDraw:
    """What happens to the intensities of each sample, all (N,); an effect not drawn has its neutral value.

    Attributes:
        blurs: standard deviation in voxels, neutral 0.
        gammas: exponent, neutral 1.
        contrasts: factor, neutral 1.
        brightnesses: summand, neutral 0.
        noises: standard deviation, neutral 0.
        noise_seed: of the generator on the images' device that draws the noise itself.
    """

    blurs: Tensor
    gammas: Tensor
    contrasts: Tensor
    brightnesses: Tensor
    noises: Tensor
    noise_seed: int


class BaseAugmentation:
    """Random geometry and intensity for batches, 2D or 3D, on the batch's device.

    Geometry moves image and label together, through one sampling grid; intensity never sees the
    label. Images are expected in [0, 1] and a sample whose intensities change is clamped to it.
    All numbers come from the CPU generator, so that devices agree, but for the noise's voxels.

    Args:
        config: ranges and probabilities.
        mirror_axes: axes of (S, P, L) along which the task allows mirror images (`Task.mirror_axes`);
            the slices of a 2D batch lie in (P, L), so that S counts in 3D only.
    """

    def __init__(self, config: BaseAugmentationConfig, mirror_axes: Sequence[int] = ()) -> None:
        self.config = config
        self.mirror_axes = tuple(mirror_axes)

    def draw(
        self, batch_shape: Sequence[int], generator: torch.Generator
    ) -> tuple[GeometryDraw, IntensityDraw]:
        """Draw for images of shape (N, C, *spatial) from a CPU generator."""
        samples, _, *spatial = batch_shape
        axes = [axis - (3 - len(spatial)) for axis in self.mirror_axes]
        geometry = draw_geometry(
            self.config, samples, spatial, [axis for axis in axes if axis >= 0], generator
        )
        return geometry, draw_intensity(self.config, samples, generator)

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            images: (N, C, *spatial), floating point in [0, 1]; not changed.
            labels: (N, *spatial), integers; not changed.
            generator: on the CPU.

        Returns:
            Images and labels of the same shapes, types and device; what comes in from outside the
            image is 0.
        """
        geometry, intensity = self.draw(images.shape, generator)
        images, labels = apply_geometry(images, labels, geometry)
        return apply_intensity(images, intensity), labels


def draw_geometry(
    config: BaseAugmentationConfig,
    samples: int,
    spatial: Sequence[int],
    mirror_axes: Sequence[int],
    generator: torch.Generator,
) -> GeometryDraw:
    """Draw affine maps, mirror images along `mirror_axes` of `spatial`, and elastic fields."""
    dims = len(spatial)
    sizes = torch.tensor(spatial, dtype=torch.float32)
    moved = _coins(config.affine_prob, samples, generator)
    matrices = torch.where(moved[:, None, None], _affine(config, samples, dims, generator), torch.eye(dims))
    shifts = _uniform(-config.translation, config.translation, (samples, dims), generator) * sizes
    for axis in mirror_axes:
        mirrored = _coins(config.mirror_prob, samples, generator)
        matrices[:, :, axis] *= torch.where(mirrored, -1.0, 1.0)[:, None]
    bent = _coins(config.elastic_prob, samples, generator)
    intervals = max(1, round(1 / config.elastic_spacing))
    limit = config.elastic_magnitude
    controls = _uniform(-limit, limit, (samples, dims, *[intervals + 3] * dims), generator)
    controls = controls * broadcast(sizes / intervals, controls[0]) * broadcast(bent, controls)
    return GeometryDraw(matrices, shifts * moved[:, None], controls)


def _affine(config: BaseAugmentationConfig, samples: int, dims: int, generator: torch.Generator) -> Tensor:
    """Rotation, shear and scale as (N, D, D) maps from output to input."""
    shape = (samples, dims, dims)
    angle = radians(config.rotation)
    angles = _uniform(-angle, angle, shape, generator).triu(1)
    rotations: Tensor = torch.linalg.matrix_exp(angles - angles.mT)
    shears = torch.eye(dims) + _uniform(-config.shear, config.shear, shape, generator).triu(1)
    scales = _log_uniform(config.scale, samples, generator)
    with torch.autocast("cpu", enabled=False):
        return rotations @ shears / scales[:, None, None]


def draw_intensity(config: BaseAugmentationConfig, samples: int, generator: torch.Generator) -> IntensityDraw:
    """Draw the strength of each effect for each sample."""
    one = torch.ones(samples)
    blurred = _coins(config.blur_prob, samples, generator)
    blurs = _uniform(*config.blur, (samples,), generator) * blurred
    curved = _coins(config.gamma_prob, samples, generator)
    gammas = torch.where(curved, _log_uniform(config.gamma, samples, generator), one)
    changed = _coins(config.contrast_prob, samples, generator)
    contrasts = torch.where(changed, _log_uniform(config.contrast, samples, generator), one)
    brightnesses = _uniform(-config.brightness, config.brightness, (samples,), generator) * changed
    noisy = _coins(config.noise_prob, samples, generator)
    noises = _uniform(0, config.noise, (samples,), generator) * noisy
    noise_seed = int(torch.randint(2**31, (1,), generator=generator))
    return IntensityDraw(blurs, gammas, contrasts, brightnesses, noises, noise_seed)


@torch.no_grad()
def apply_intensity(images: Tensor, draw: IntensityDraw) -> Tensor:
    """Blur, gamma curve, contrast, brightness and noise, in this order, each clamped to [0, 1]."""

    def curve(values: Tensor, gammas: Tensor) -> Tensor:
        return values.clamp(0, 1) ** gammas

    def stretch(values: Tensor, factors: Tensor) -> Tensor:
        means = values.flatten(1).mean(1)
        return torch.lerp(broadcast(means, values), values, factors)

    def add_noise(values: Tensor, deviations: Tensor) -> Tensor:
        generator = torch.Generator(values.device).manual_seed(draw.noise_seed)
        noise = torch.randn(values.shape, generator=generator, device=values.device)
        return values + deviations * noise

    with torch.autocast(images.device.type, enabled=False):
        result = images.float()
        result = _change(result, draw.blurs, 0, _blur)
        result = _change(result, draw.gammas, 1, curve)
        result = _change(result, draw.contrasts, 1, stretch)
        result = _change(result, draw.brightnesses, 0, torch.add)
        result = _change(result, draw.noises, 0, add_noise)
    return result.to(images.dtype)


def _change(
    images: Tensor, strengths: Tensor, neutral: float, effect: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Replace the samples whose strength is not neutral by the effect, clamped to [0, 1]."""
    chosen = (strengths != neutral).nonzero()[:, 0]
    if len(chosen) == 0:
        return images
    index = chosen.to(images.device)
    values = images.index_select(0, index)
    changed = effect(values, broadcast(strengths[chosen].to(images.device), values))
    return images.index_copy(0, index, changed.clamp(0, 1))


def _blur(images: Tensor, deviations: Tensor) -> Tensor:
    """Gaussian blur along every spatial axis; at the border the weights inside the image count."""
    for axis in range(2, images.ndim):
        places = torch.arange(images.shape[axis], device=images.device)
        weights = torch.exp(-(places**2) / (2 * deviations[:, 0] ** 2))[..., (places[:, None] - places).abs()]
        images = along_axis(images, axis, weights / weights.sum(-1, keepdim=True))
    return images


def _coins(prob: float, samples: int, generator: torch.Generator) -> Tensor:
    return torch.rand(samples, generator=generator) < prob


def _uniform(low: float, high: float, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _log_uniform(bounds: tuple[float, float], samples: int, generator: torch.Generator) -> Tensor:
    return _uniform(log(bounds[0]), log(bounds[1]), (samples,), generator).exp()
