import pytest
import torch
from monai.networks.nets import UNet
from pydantic import ValidationError

from fedmodal.errors import UserError
from fedmodal.networks import NetworkConfig, SegmentationNetwork, standardize, weights_hash
from fedmodal.training.config import read_settings, training_config


def test_same_seed_same_weights_and_global_state_untouched() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, same, other = (SegmentationNetwork("abdomen", seed) for seed in (1, 1, 2))
    assert weights_hash(one.state_dict()) == weights_hash(same.state_dict())
    assert weights_hash(one.state_dict()) != weights_hash(other.state_dict())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("dims", "shape"), [(2, (1, 1, 32, 32)), (3, (1, 1, 16, 16, 16))])
def test_scores_have_the_image_s_shape(dims: int, shape: tuple[int, ...]) -> None:
    network = SegmentationNetwork("heart", 0, {"spatial_dims": dims, "channels": (4, 8, 16)})
    assert network(torch.zeros(shape)).shape == (1, 2, *shape[2:])


def test_default_network_keeps_no_running_statistics() -> None:
    assert not list(SegmentationNetwork("abdomen", 0).buffers())


def test_too_deep_for_a_slice() -> None:
    with pytest.raises(ValidationError, match="at most 5 levels"):
        NetworkConfig(channels=(1,) * 6)


def test_unknown_setting_is_named() -> None:
    with pytest.raises(UserError, match=r"'batchsize': .*not permitted"):
        training_config({"batchsize": 4})


def test_wrong_value_is_shown() -> None:
    with pytest.raises(UserError, match=r"'network.channels.0': .*\(got 0\)"):
        training_config({"network": {"channels": [0, 8]}})


def test_settings_file_must_hold_an_object(tmp_path) -> None:  # noqa: ANN001
    path = tmp_path / "s.json"
    path.write_text("[1]")
    with pytest.raises(UserError, match="expected a JSON object"):
        read_settings(path)


@pytest.mark.parametrize("units", [0, 2])
def test_monai_head_is_monai_s_own_network(units: int) -> None:
    settings = {"channels": (4, 8, 16), "residual_units": units}
    ours = SegmentationNetwork("heart", 3, settings | {"head": "monai", "activation": "prelu"})
    direct = SegmentationNetwork("heart", 3, settings)
    torch.manual_seed(3)
    monai = UNet(2, 1, 2, (4, 8, 16), (2, 2), num_res_units=units)  # with its own PReLU and instance norm
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(ours(images), monai(standardize(images)))
    assert not torch.equal(ours(images), direct(images))
