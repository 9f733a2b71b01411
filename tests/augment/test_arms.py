import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from fedmodal.augment import ARMS, make_arm
from fedmodal.augment.gin import GIN, apply_gin
from fedmodal.augment.ipa import apply_ipa
from fedmodal.augment.randconv import apply_randconv
from fedmodal.augment.spectrum import apply_spectrum
from fedmodal.errors import UserError
from fedmodal.normlocal import NORMLOCAL

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
SHAPES = [(2, 1, 16, 16), (1, 1, 24, 17), (3, 3, 13, 16), (2, 1, 12, 13, 16), (1, 2, 12, 12, 12)]
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "gin": ("gin", {}),
    "gin, shared kernels": ("gin", {"share_kernels": True}),
    "ipa": ("ipa", {}),
    "randconv": ("randconv", {}),
    "randconv, pure": ("randconv", {"mixing": False}),
    "spectrum": ("spectrum", {}),
}
APPLY: dict[str, Any] = {
    "gin": apply_gin,
    "ipa": apply_ipa,
    "randconv": apply_randconv,
    "spectrum": apply_spectrum,
}

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(*(shape or SHAPES[0]), generator=seeded(seed))


def arm_of(variant: str, **options: object) -> Any:
    name, given = VARIANTS[variant]
    return make_arm(name, given | options)


def test_every_arm_is_among_the_variants() -> None:
    """But those that leave images alone."""
    assert {"none", NORMLOCAL} | {name for name, _ in VARIANTS.values()} == set(ARMS)


@every_variant
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_type_and_input_are_kept(variant: str, shape: tuple[int, ...]) -> None:
    images = batch(*shape)
    result = arm_of(variant)(images, seeded())
    assert result.shape == images.shape
    assert result.dtype == torch.float32
    assert result.isfinite().all()
    assert (result != images).flatten(1).any(1).all(), "every sample must be changed"
    assert torch.equal(images, batch(*shape))


@every_variant
@pytest.mark.parametrize("shape", SHAPES)
def test_the_seed_decides(variant: str, shape: tuple[int, ...]) -> None:
    arm, images = arm_of(variant), batch(*shape)
    assert torch.equal(arm(images, seeded(5)), arm(images, seeded(5)))
    assert not torch.equal(arm(images, seeded(5)), arm(images, seeded(6)))


@every_variant
def test_global_random_state_is_neither_read_nor_changed(variant: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = arm_of(variant)(batch(), seeded())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(arm_of(variant)(batch(), seeded()), first)


@every_variant
def test_equal_images_come_out_different(variant: str) -> None:
    images = batch(1, 1, 16, 16).repeat(4, 1, 1, 1)
    result = arm_of(variant)(images, seeded())
    assert all((result[a] - result[b]).abs().max() > 0.001 for a, b in [(0, 1), (1, 2), (2, 3), (0, 3)])


@pytest.mark.parametrize("name", ["gin", "ipa", "randconv"])
def test_a_sample_does_not_see_the_others(name: str) -> None:
    images, others = batch(4, 1, 16, 16), 50 * batch(4, 1, 16, 16, seed=99)
    others[2] = images[2]
    draw = arm_of(name).draw(images.shape, seeded())
    assert torch.equal(APPLY[name](others, draw)[2], APPLY[name](images, draw)[2])


@every_variant
@pytest.mark.parametrize("samples", [1, 2])
def test_zeros_stay_zeros(variant: str, samples: int) -> None:
    images = batch(samples, 1, 16, 16)
    images[0] = 0
    assert torch.equal(arm_of(variant)(images, seeded())[0], images[0])


@every_variant
def test_no_gradient(variant: str) -> None:
    assert not arm_of(variant)(batch().requires_grad_(), seeded()).requires_grad
    assert list(arm_of(variant).parameters()) == []


@every_variant
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(variant: str, device: str, dtype: torch.dtype) -> None:
    images = batch().to(device)
    plain = arm_of(variant)(images, seeded())
    with torch.autocast(device, dtype=dtype):
        result = arm_of(variant)(images, seeded())
    assert result.dtype == torch.float32
    assert torch.equal(result, plain)


@every_variant
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_come_back_from_float32(variant: str, dtype: torch.dtype) -> None:
    images = batch().to(dtype)
    result = arm_of(variant)(images, seeded())
    assert result.dtype == dtype
    assert torch.equal(result, arm_of(variant)(images.float(), seeded()).to(dtype))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every_variant
@pytest.mark.parametrize("spatial", [(32, 32), (12, 16, 16)])
def test_gpu_agrees_with_cpu(variant: str, spatial: tuple[int, ...]) -> None:
    images = batch(2, 1, *spatial)
    result = arm_of(variant)(images.cuda(), seeded())
    assert result.is_cuda
    torch.testing.assert_close(result.cpu(), arm_of(variant)(images, seeded()), rtol=1e-4, atol=1e-5)


@every_variant
def test_prob_zero_is_the_identity_and_prob_half_changes_half(variant: str) -> None:
    images = batch(200, 1, 4, 4)
    assert torch.equal(arm_of(variant, prob=0)(images, seeded()), images)
    changed = (arm_of(variant, prob=0.5)(images, seeded()) != images).flatten(1).any(1)
    assert 70 < int(changed.sum()) < 130  # 4 standard deviations


@every_variant
@pytest.mark.parametrize("prob", [-0.1, 1.1, float("nan")])
def test_a_probability_out_of_range_is_refused(variant: str, prob: float) -> None:
    with pytest.raises(UserError, match="prob must be from 0 to 1"):
        arm_of(variant, prob=prob)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *product(APPLY, [(3, 1, 8, 8), (2, 1, 8, 8, 8)]),
        *product(["gin", "ipa", "randconv"], [(2, 3, 8, 8)]),
        ("spectrum", (2, 1, 8, 9)),
    ],
)
def test_a_draw_for_another_batch_is_refused(name: str, shape: tuple[int, ...]) -> None:
    draw = arm_of(name).draw((2, 1, 8, 8), seeded())
    with pytest.raises(ValueError, match="drawn for"):
        APPLY[name](batch(*shape), draw)


def test_none_is_the_identity() -> None:
    assert torch.equal(make_arm("none")(batch(), seeded()), batch())


def test_options_reach_the_arm() -> None:
    arm = make_arm("gin", {"share_kernels": True, "kernel_sizes": [3]})
    assert isinstance(arm, GIN)
    assert arm.share_kernels
    assert arm.kernel_sizes == (3,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gim", {}, "unknown augmentation arm 'gim': choose one of none, gin, ipa, randconv, spectrum"),
        ("gin", {"prob": 2}, "augmentation arm 'gin': prob must be from 0 to 1, got 2"),
        ("gin", {"layers": 4}, "augmentation arm 'gin': .*layers"),
        ("ipa", {"control_spacing": 0}, "augmentation arm 'ipa': control_spacing must be above 0"),
        ("none", {"prob": 1}, "augmentation arm 'none'"),
        ("randconv", {"kernel_sizes": [2]}, r"augmentation arm 'randconv': kernel_sizes must be odd"),
        ("spectrum", {"band": [0.1, 0.5]}, "augmentation arm 'spectrum': band needs .* got 0.1 and 0.5"),
    ],
)
def test_errors_name_the_arm_in_one_line(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make_arm(name, options)
    assert "\n" not in str(error.value)


def test_the_registry_imports_nothing_heavy() -> None:
    code = "import fedmodal.augment, sys; sys.exit(bool({'torch', 'monai'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
