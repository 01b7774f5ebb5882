"""The configuration of an experiment: fields, checks, companions, studies."""
