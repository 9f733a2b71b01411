"""fedmodal: hospitals with CT only or MRI only train one segmentation network together."""

__version__ = "0.1.0"
