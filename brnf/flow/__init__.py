"""Densities of pixel features per class, and what is decided with them: rows of numbers, no images."""
