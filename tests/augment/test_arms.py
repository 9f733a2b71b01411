import subprocess
import sys

import pytest
import torch
from torch import Tensor

from fedmodal.augment import ARMS, make_arm
from fedmodal.augment.gin import GIN
from fedmodal.errors import UserError


def images() -> Tensor:
    return torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_keeps_shape_type_input_and_repeats(name: str) -> None:
    arm, batch = make_arm(name), images()
    result = arm(batch, torch.Generator().manual_seed(0))
    assert result.shape == batch.shape
    assert result.dtype == batch.dtype
    assert torch.equal(batch, images())
    assert torch.equal(arm(batch, torch.Generator().manual_seed(0)), result)


def test_none_is_the_identity() -> None:
    assert torch.equal(make_arm("none")(images(), torch.Generator()), images())


def test_options_reach_the_arm() -> None:
    arm = make_arm("gin", {"share_kernels": True, "kernel_sizes": [3]})
    assert isinstance(arm, GIN)
    assert arm.share_kernels
    assert arm.kernel_sizes == (3,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gim", {}, "unknown augmentation arm 'gim': choose one of none, gin"),
        ("gin", {"prob": 2}, "augmentation arm 'gin': prob must be from 0 to 1, got 2"),
        ("gin", {"layers": 4}, "augmentation arm 'gin': .*layers"),
        ("none", {"prob": 1}, "augmentation arm 'none'"),
    ],
)
def test_errors_name_the_arm_in_one_line(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make_arm(name, options)
    assert "\n" not in str(error.value)


def test_the_registry_imports_nothing_heavy() -> None:
    code = "import fedmodal.augment, sys; sys.exit(bool({'torch', 'monai'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
