"""The dilation patterns of what is timed."""

from icconv_mm.patterns import load_pattern


def find_pattern(published: str, substitute: str) -> str:
    """A published pattern, or the analytic one that stands in for it where it cannot be read."""
    try:
        load_pattern(published)
    except FileNotFoundError:
        return substitute
    return published
