from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, RandFlipd, ToTensord
from monai.utils import TransformBackends
from torch import Tensor

from fedmodal.augment.gin import RandGIN, RandGINd
from fedmodal.augment.ipa import RandIPA, RandIPAd
from fedmodal.augment.monai_transforms import RandArm, RandArmd
from fedmodal.augment.randconv import RandConv, RandConvd
from fedmodal.augment.spectrum import RandSpectrum, RandSpectrumd

ARRAYS = [RandGIN, RandIPA, RandConv, RandSpectrum]
DICTIONARIES = [RandGINd, RandIPAd, RandConvd, RandSpectrumd]
arrays = pytest.mark.parametrize("make", ARRAYS)
dictionaries = pytest.mark.parametrize("make", DICTIONARIES)


def image(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def patient() -> dict[str, Tensor]:
    return {"ct": image(1, 16, 16), "mri": image(1, 16, 16, seed=8), "label": image(1, 16, 16).gt(0.5).byte()}


@arrays
def test_array_transform_repeats_with_its_state(make: Any) -> None:
    transform = make()
    first = transform.set_random_state(3)(image(1, 16, 16))
    assert torch.equal(transform.set_random_state(3)(image(1, 16, 16)), first)
    assert not torch.equal(transform(image(1, 16, 16)), first)
    assert not torch.equal(transform.set_random_state(4)(image(1, 16, 16)), first)


@arrays
def test_randomize_false_uses_the_last_draw(make: Any) -> None:
    transform = make().set_random_state(0)
    first = transform(image(1, 16, 16))
    assert torch.equal(transform(image(1, 16, 16), randomize=False), first)
    with pytest.raises(RuntimeError, match="randomize"):
        make()(image(1, 16, 16), randomize=False)


@arrays
def test_meta_data_type_and_input_survive(make: Any) -> None:
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    before = MetaTensor(image(1, 8, 8, 8).double(), affine=affine, meta={"site": "A"})
    result = make().set_random_state(0)(before)
    assert isinstance(result, MetaTensor)
    assert torch.equal(result.affine, affine)
    assert result.meta["site"] == "A"
    assert result.dtype == torch.float64
    assert torch.equal(before.as_tensor(), image(1, 8, 8, 8).double())


@arrays
def test_numpy_and_integer_images_become_float_tensors(make: Any) -> None:
    result = make().set_random_state(0)(np.arange(64, dtype=np.int16).reshape(1, 8, 8))
    assert isinstance(result, Tensor)
    assert result.dtype == torch.float32


def test_the_backend_is_torch() -> None:
    assert RandArm.backend == RandArmd.backend == [TransformBackends.TORCH]


@dictionaries
def test_dictionary_transform_repeats_with_its_state(make: Any) -> None:
    transform = make(keys="ct")
    first = transform.set_random_state(3)(patient())["ct"]
    assert torch.equal(transform.set_random_state(3)(patient())["ct"], first)
    assert not torch.equal(transform.set_random_state(4)(patient())["ct"], first)
    state = np.random.RandomState(3)
    again = make(keys="ct").set_random_state(state=state)(patient())["ct"]
    assert torch.equal(
        make(keys="ct").set_random_state(state=np.random.RandomState(3))(patient())["ct"], again
    )


@dictionaries
def test_all_keys_get_the_same_draw(make: Any) -> None:
    data = patient() | {"mri": patient()["ct"]}
    result = make(keys=["ct", "mri"]).set_random_state(0)(data)
    assert torch.equal(result["ct"], result["mri"])
    assert not torch.equal(result["ct"], data["ct"])


@dictionaries
def test_labels_and_input_are_untouched(make: Any) -> None:
    data = patient()
    label = data["label"]
    result = make(keys=["ct", "mri"]).set_random_state(0)(data)
    assert result["label"] is label
    assert all(torch.equal(data[key], value) for key, value in patient().items())


@dictionaries
def test_missing_keys(make: Any) -> None:
    data = {"mri": image(1, 16, 16)}
    result = make(keys=["ct", "mri"], allow_missing_keys=True).set_random_state(0)(data)
    assert set(result) == {"mri"}
    assert not torch.equal(result["mri"], data["mri"])
    assert make(keys="ct", allow_missing_keys=True)({"label": 1}) == {"label": 1}
    with pytest.raises(KeyError):
        make(keys=["ct", "mri"])(data)


@dictionaries
def test_probability(make: Any) -> None:
    transform = make(keys="ct", prob=0.5).set_random_state(0)
    changed = sum(not torch.equal(transform(patient())["ct"], patient()["ct"]) for _ in range(100))
    assert 30 < changed < 70  # 4 standard deviations
    assert torch.equal(make(keys="ct", prob=0)(patient())["ct"], patient()["ct"])


@pytest.mark.parametrize("prob", [-0.1, 1.1])
@pytest.mark.parametrize(("array", "dictionary"), [*zip(ARRAYS, DICTIONARIES, strict=True)])
def test_a_probability_out_of_range_is_refused(array: Any, dictionary: Any, prob: float) -> None:
    for make in (lambda: array(prob=prob), lambda: dictionary(keys="ct", prob=prob)):
        with pytest.raises(ValueError, match="prob must be from 0 to 1"):
            make()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (RandGINd, {"kernel_sizes": (2,)}, "kernel_sizes"),
        (RandConvd, {"kernel_sizes": ()}, "kernel_sizes"),
        (RandSpectrumd, {"band": (0.2, 0.1)}, "band"),
    ],
)
def test_options_reach_the_arm_inside(make: Any, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(keys="ct", **options)


def test_options_change_what_the_arm_does() -> None:
    before = image(1, 16, 16)
    after = RandConv(kernel_sizes=(1,), mixing=False).set_random_state(0)(before)
    torch.testing.assert_close(after, before * (after[0, 0, 0] / before[0, 0, 0]))
    assert torch.equal(RandSpectrum(jitter=0).set_random_state(0)(before), before)
    turned_off = RandSpectrumd(["ct", "mri"], jitter=0).set_random_state(0)(patient())
    assert all(torch.equal(turned_off[key], patient()[key]) for key in ("ct", "mri"))


@pytest.mark.parametrize(
    ("make", "shape"), [(RandGINd, (3, 16, 16)), (RandConvd, (3, 16, 16)), (RandSpectrumd, (1, 16, 17))]
)
def test_images_that_do_not_fit_one_draw_are_refused(make: Any, shape: tuple[int, ...]) -> None:
    data = patient() | {"mri": image(*shape)}
    with pytest.raises(ValueError, match="drawn for"):
        make(keys=["ct", "mri"]).set_random_state(0)(data)


def pipeline(transform: Any) -> Compose:
    return Compose([ToTensord(["ct", "label"]), RandFlipd(["ct", "label"], prob=0.5), transform])


@dictionaries
def test_in_compose_the_seed_decides(make: Any) -> None:
    chain = pipeline(make(keys="ct"))
    first = chain.set_random_state(11)(patient())
    assert torch.equal(chain.set_random_state(11)(patient())["ct"], first["ct"])
    assert not torch.equal(chain.set_random_state(12)(patient())["ct"], first["ct"])


@dictionaries
def test_workers_of_a_loader_draw_differently_and_repeat(make: Any) -> None:
    def load() -> Tensor:
        data = Dataset([patient()] * 4, make(keys="ct"))
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(
            data, batch_size=1, num_workers=2, generator=generator, multiprocessing_context="fork"
        )
        return torch.cat([item["ct"] for item in loader])

    first = load()
    assert len({float(item.sum()) for item in first}) == 4
    assert torch.equal(load(), first)
