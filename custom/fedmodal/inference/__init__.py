"""What a trained model is used for: label maps of new images."""
