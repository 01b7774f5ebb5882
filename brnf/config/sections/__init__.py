"""The keys of an experiment, each declared once: type, bounds, default and meaning.

A class is a section of the configuration, or the part of one that a stage takes. A docstring under
a field is its description in the schema, in docs/configuration.md and on help pages.
"""
