"""Files of the workflow: whole-or-nothing writing, CAM maps and pixel features in HDF5."""
