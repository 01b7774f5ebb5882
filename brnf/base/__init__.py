"""Other sources of base seeds than SIPE: SFC, CLIP-ES, and maps that other code wrote
(`docs/method.md` section 3).
"""
