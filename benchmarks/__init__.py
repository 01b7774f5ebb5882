"""Every hot loop beside the way the research code of the field writes it: ``make bench``."""
