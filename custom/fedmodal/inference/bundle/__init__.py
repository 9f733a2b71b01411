"""`fedmodal bundle`: a model as a MONAI bundle, which MONAI runs without this package."""

from fedmodal.inference.bundle.write import write_bundle

__all__ = ["write_bundle"]
