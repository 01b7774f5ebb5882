"""What the workflow asks of Python while it is parsed: configuration, command lines, fingerprints.
Imports nothing heavy.
"""
