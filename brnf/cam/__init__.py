"""The CAM network, prototypes, multi-scale inference and the losses of BRNF (`method.md` sections 2 and 7)."""
