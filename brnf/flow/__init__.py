"""Densities of pixel features per class, and decisions by them: rows of numbers, no images."""
