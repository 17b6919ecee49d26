"""What the search pipeline compares. Apart from it, so that a tool can list them without loading what trains."""

VARIANTS = ('dense', 'analytic', 'searched', 'inherited')  # networks that a search is compared with, and its own
