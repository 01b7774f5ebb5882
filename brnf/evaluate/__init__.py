"""Evaluation: confusion matrices, threshold sweeps, context bias, tables, figures, report."""
