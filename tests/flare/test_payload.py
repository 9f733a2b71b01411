import numpy as np
import pytest

from fedmodal.errors import UserError
from fedmodal.flare.payload import check_weights

SHAPES = {"a": (2, 3), "b": (4,)}


def weights(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return {"a": np.zeros((2, 3)), "b": np.zeros(4)} | changes


def test_good_weights_pass() -> None:
    check_weights(weights(), SHAPES, "site-1")


@pytest.mark.parametrize(
    ("received", "message"),
    [
        ({"a": np.zeros((2, 3))}, r"from site-1 are for another network: 1 missing \(first: b\)"),
        (weights(c=np.zeros(1)), r"from site-1 .* 1 unknown \(first: c\)"),
        (weights(b=np.zeros(5)), r"from site-1: 'b' has shape \(5,\), expected \(4,\)"),
        (weights(b=np.array([0, 0, np.nan, 0])), "from site-1: 'b' holds NaN"),
        (weights(a=np.full((2, 3), np.inf)), "from site-1: 'a' holds NaN or infinity"),
    ],
)
def test_fault_is_named_with_its_sender(received: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_weights(received, SHAPES, "site-1")
