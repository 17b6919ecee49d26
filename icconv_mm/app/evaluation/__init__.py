"""Evaluation by the metrics of the libraries, and its report."""
