"""Other sources of base seeds than SIPE: SFC, CLIP-ES, and maps that other code wrote (`method.md` section 3)."""
