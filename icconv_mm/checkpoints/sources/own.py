"""Takes files of this package, whose filters are to be aligned; their keys stay."""

from collections.abc import Sequence

from icconv_mm.checkpoints.convert import OWN, Conversion, RenameRule, register_source


@register_source(OWN)
def take_own(conversion: Conversion, rules: Sequence[RenameRule] = (), pattern: str | Sequence | None = None) -> None:
    """Places every key, renamed by the rules alone.

    Args:
        pattern: The pattern of the weights, for ``align`` of :func:`icconv_mm.checkpoints.convert_file`.
    """
    conversion.layout = OWN
    conversion.rename_left(rules)
    conversion.place_all('.*')
