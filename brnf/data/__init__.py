"""Data sets: VOC, tables of own images, rendered scenes; the image index; augmentation."""
