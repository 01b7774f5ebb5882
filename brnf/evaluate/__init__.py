"""Evaluation: confusion matrices, threshold sweeps, context bias, tables, figures and the report."""
