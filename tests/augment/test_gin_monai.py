import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, RandFlipd, ToTensord
from monai.utils import TransformBackends
from torch import Tensor

from fedmodal.augment.gin import RandGIN, RandGINd


def image(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def patient() -> dict[str, Tensor]:
    return {"ct": image(1, 16, 16), "mri": image(1, 16, 16, seed=8), "label": image(1, 16, 16).gt(0.5).byte()}


def test_array_transform_repeats_with_its_state() -> None:
    transform = RandGIN()
    first = transform.set_random_state(3)(image(1, 16, 16))
    assert torch.equal(transform.set_random_state(3)(image(1, 16, 16)), first)
    assert not torch.equal(transform(image(1, 16, 16)), first)
    assert not torch.equal(transform.set_random_state(4)(image(1, 16, 16)), first)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 16), (1, 8, 9, 10)])
def test_array_transform_keeps_the_norm(shape: tuple[int, ...]) -> None:
    result = RandGIN().set_random_state(0)(image(*shape))
    assert result.shape == shape
    assert float(result.norm()) == pytest.approx(float(image(*shape).norm()), rel=1e-4)


def test_randomize_false_uses_the_last_draw() -> None:
    transform = RandGIN().set_random_state(0)
    first = transform(image(1, 16, 16))
    assert torch.equal(transform(image(1, 16, 16), randomize=False), first)
    with pytest.raises(RuntimeError, match="randomize"):
        RandGIN()(image(1, 16, 16), randomize=False)


def test_meta_data_type_and_input_survive() -> None:
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    before = MetaTensor(image(1, 8, 8, 8).double(), affine=affine, meta={"site": "A"})
    result = RandGIN().set_random_state(0)(before)
    assert isinstance(result, MetaTensor)
    assert torch.equal(result.affine, affine)
    assert result.meta["site"] == "A"
    assert result.dtype == torch.float64
    assert torch.equal(before.as_tensor(), image(1, 8, 8, 8).double())


def test_numpy_and_integer_images_become_float_tensors() -> None:
    result = RandGIN().set_random_state(0)(np.arange(64, dtype=np.int16).reshape(1, 8, 8))
    assert isinstance(result, Tensor)
    assert result.dtype == torch.float32
    assert RandGIN.backend == RandGINd.backend == [TransformBackends.TORCH]


def test_dictionary_transform_repeats_with_its_state() -> None:
    transform = RandGINd(keys="ct")
    first = transform.set_random_state(3)(patient())["ct"]
    assert torch.equal(transform.set_random_state(3)(patient())["ct"], first)
    assert not torch.equal(transform.set_random_state(4)(patient())["ct"], first)
    state = np.random.RandomState(3)
    again = RandGINd(keys="ct").set_random_state(state=state)(patient())["ct"]
    assert torch.equal(
        RandGINd(keys="ct").set_random_state(state=np.random.RandomState(3))(patient())["ct"], again
    )


def test_all_keys_get_the_same_draw() -> None:
    data = patient() | {"mri": patient()["ct"]}
    result = RandGINd(keys=["ct", "mri"]).set_random_state(0)(data)
    assert torch.equal(result["ct"], result["mri"])
    assert not torch.equal(result["ct"], data["ct"])


def test_labels_and_input_are_untouched() -> None:
    data = patient()
    label = data["label"]
    result = RandGINd(keys=["ct", "mri"]).set_random_state(0)(data)
    assert result["label"] is label
    assert all(torch.equal(data[key], value) for key, value in patient().items())


def test_missing_keys() -> None:
    data = {"mri": image(1, 16, 16)}
    result = RandGINd(keys=["ct", "mri"], allow_missing_keys=True).set_random_state(0)(data)
    assert set(result) == {"mri"}
    assert not torch.equal(result["mri"], data["mri"])
    assert RandGINd(keys="ct", allow_missing_keys=True)({"label": 1}) == {"label": 1}
    with pytest.raises(KeyError):
        RandGINd(keys=["ct", "mri"])(data)


def test_probability() -> None:
    transform = RandGINd(keys="ct", prob=0.5).set_random_state(0)
    changed = sum(not torch.equal(transform(patient())["ct"], patient()["ct"]) for _ in range(100))
    assert 30 < changed < 70  # 4 standard deviations
    assert torch.equal(RandGINd(keys="ct", prob=0)(patient())["ct"], patient()["ct"])


@pytest.mark.parametrize("prob", [-0.1, 1.1])
def test_a_probability_out_of_range_is_refused(prob: float) -> None:
    for make in (lambda: RandGIN(prob=prob), lambda: RandGINd(keys="ct", prob=prob)):
        with pytest.raises(ValueError, match="prob must be from 0 to 1"):
            make()


def test_images_of_different_channels_are_refused() -> None:
    data = patient() | {"mri": image(3, 16, 16)}
    with pytest.raises(ValueError, match="drawn for"):
        RandGINd(keys=["ct", "mri"]).set_random_state(0)(data)


def pipeline() -> Compose:
    return Compose([ToTensord(["ct", "label"]), RandFlipd(["ct", "label"], prob=0.5), RandGINd(keys="ct")])


def test_in_compose_the_seed_decides() -> None:
    chain = pipeline()
    first = chain.set_random_state(11)(patient())
    assert torch.equal(chain.set_random_state(11)(patient())["ct"], first["ct"])
    assert not torch.equal(chain.set_random_state(12)(patient())["ct"], first["ct"])


def test_workers_of_a_loader_draw_different_kernels_and_repeat() -> None:
    def load() -> Tensor:
        data = Dataset([patient()] * 4, RandGINd(keys="ct"))
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(
            data, batch_size=1, num_workers=2, generator=generator, multiprocessing_context="fork"
        )
        return torch.cat([item["ct"] for item in loader])

    first = load()
    assert len({float(item.sum()) for item in first}) == 4
    assert torch.equal(load(), first)
