"""Decides which keypoints a horizontal flip swaps, by their names; and whether images may be flipped at all."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_WORDS = (
    *(('left', 'right'), ('links', 'rechts'), ('gauche', 'droite'), ('izquierd', 'derech'), ('sinistr', 'destr')),
    *(('esquerd', 'direit'), ('_izq', '_der'), ('_sx', '_dx'), ('lew', 'praw'), ('linker', 'rechter')),
    *(('venstre', 'høyre'), ('venstre', 'hoyre'), ('vänster', 'höger'), ('vanster', 'hoger'), ('hidari', 'migi')),
    *(('levy', 'pravy'), ('levý', 'pravý'), ('лев', 'прав'), ('左', '右'), ('왼', '오른')),
)
_SIDES = [tuple(map(case, pair)) for case in (str.lower, str.title, str.upper) for pair in _WORDS] + [*zip('Ll', 'Rr')]
_TOKEN = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+')
_SIDED = re.compile(
    r'[fhbtul]?[lr]|[lr][fhbtu]|east|west|port|starboard|(ba|back|tri|styr|steuer)bord'
    '|near(side)?|far|offside|ipsi(lateral)?|contra(lateral)?|dexter|sinister|li|re|esq|dir|izq|der|sol|sag'
)  # a word of a name
_ORDER = re.compile(
    r'[\W\d_]+|(?<![A-Za-z])[A-Za-z](?![A-Za-z])|(?<=[a-z])[A-Z](?![A-Za-z])|(?i:first|second|third|fourth)'
)
_AXIS = re.compile('spin|tail|back|neck|trunk|body|vertebra|abdomen|mid|cent')  # stems of names on the axis of symmetry
_GENERIC = ('point', 'keypoint', 'kpt', 'kp', 'landmark')


class Flips(NamedTuple):
    """What a horizontal flip does with keypoints.

    Attributes:
        pairs: Names that it swaps; None if nothing says which, so that images may not be flipped.
        alone: Names that keep their index; without pairs, those that may have a partner that nothing names.
        problem: Why indices of a file are not used; '' if they are, or if there are none.
    """

    pairs: list[tuple[str, str]] | None
    alone: list[str]
    problem: str = ''


def flips_of(names: Sequence[str], indices: Sequence = ()) -> Flips:
    """Returns what a flip does with keypoints: by the ``flip_idx`` of a file, else by their names.

    Args:
        names: The keypoints.
        indices: The number of each keypoint's partner; empty if the file gives none.
    """
    if (given := _pairs_of_indices(names, indices)) is not None:
        return Flips(given, [])
    expected = f'expected each number from 0 to {len(names) - 1} at the index of its partner'
    problem = f'is {list(indices)}, {expected}: not used' if indices else ''
    pairs = find_flip_pairs(names)
    if unknown := _without_known_partner(names, pairs):
        return Flips(None, unknown, problem)
    return Flips(pairs, [name for name in names if not any(name in pair for pair in pairs)], problem)


def _pairs_of_indices(names: Sequence[str], indices: Sequence) -> list[tuple[str, str]] | None:
    """Returns the pairs of a file's ``flip_idx``, the number of each keypoint's partner; None if it is none."""
    if len(indices) != len(names):
        return None
    if not all(isinstance(k, int) and 0 <= k < len(names) and indices[k] == i for i, k in enumerate(indices)):
        return None
    return [(names[i], names[k]) for i, k in enumerate(indices) if i < k]


def find_flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns names that differ only by side: ``left_eye``/``right_eye``, ``L_paw``/``R_paw``, ``lhip``/``rhip``.

    A name without such a partner may have one of other digits, if it is the only one: ``paw1LH``/``paw4RH``.
    """
    pairs = [(name, other) for name in names if (other := _other_side(name, names))]
    paired = {name for pair in pairs for name in pair}
    rest = {name: re.sub(r'\d', '', name) for name in names if name not in paired}
    once = {bare: name for name, bare in rest.items() if list(rest.values()).count(bare) == 1}
    return pairs + [(name, once[other]) for bare, name in once.items() if (other := _other_side(bare, once))]


def _other_side(name: str, names: Sequence[str]) -> str:
    """Returns the name of the other side of a left one, if it is there; else ''."""
    for left, right in _SIDES:
        pattern = left
        if len(left) == 1:
            pattern = rf'(?<![A-Za-z]){left}(?![a-z])|^{left}(?=[a-z]{{2}})|(?<=[a-z_]){left}$'
            pattern += r'|(?<=[a-z])L(?=[A-Z\d_])' * (left == 'L')
        for match in re.finditer(pattern, name):
            other = name[: match.start()] + right + name[match.end() :]
            if other in names:
                return other
    return ''


def _without_known_partner(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Returns the keypoints without a partner that may have one that nothing names.

    Those are names with a side, as ``paw_L`` alone, and names of an order: numbers, letters, ``p1`` to ``p4``. Numbers
    of a spine or a tail are no such order where other names have sides.
    """
    alone = [name for name in names if not any(name in pair for pair in pairs)]
    stems = {name: _ORDER.sub('', name).lower() for name in alone}
    counts = Counter(stems.values())
    unpaired = []
    for name, stem in stems.items():
        is_ordered = counts[stem] > 1 or stem in ('', *_GENERIC)
        is_on_axis = bool(pairs) and _AXIS.search(stem)
        if _has_side(name) or (is_ordered and not is_on_axis):
            unpaired.append(name)
    return unpaired


def _has_side(name: str) -> bool:
    has_word = any(word in name.lower() for pair in _WORDS for word in pair)
    return has_word or any(_SIDED.fullmatch(word.lower()) for word in _TOKEN.findall(name))
