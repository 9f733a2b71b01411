"""Augmentation: one method a file, as array modules on batches and as MONAI transforms."""
