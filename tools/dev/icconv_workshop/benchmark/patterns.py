"""The dilation patterns of what is timed."""

import logging

from icconv_mm.patterns import load_pattern

logger = logging.getLogger(__name__)


def find_pattern(published: str, substitute: str) -> str:
    """Returns a published pattern, or the analytic one that stands in for it where it cannot be read, with a warning.

    Figures keep the name of the published pattern: their note 'pattern' says which one was timed.
    """
    try:
        load_pattern(published)
    except FileNotFoundError:
        logger.warning('%s cannot be read: %s is timed in its place', published, substitute)
        return substitute
    return published
