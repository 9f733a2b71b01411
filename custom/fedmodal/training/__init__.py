"""Training and evaluation in plain PyTorch and MONAI; nothing here knows of a federation."""
