"""The CAM network, prototypes, multi-scale inference and the losses of BRNF (`docs/method.md`
sections 2 and 7).
"""
