"""Finds words that are replaced by the field's own, so that one thing has one name: in code, pages and configs.

Prints ``file:line: word -> replacement`` for each and exits with status 1 if there are any. By hand:
``python tools/dev/words.py [FILE OR FOLDER ...]``.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ('*.py', '*.md', '*.yml', '*.toml', '*.sh', '*.cff', 'Makefile', 'csrc')

WORDS = {  # whole words, also those of a name like old_name or OldName
    r'pictures?|photographs?|photos?': 'image',
    r'films?': 'video',
    r'things?|stuff': 'object, annotation',
    r'outlines?': 'polygon, mask',
    r'run lengths?': 'RLE',
    r'(label|class|semantic) maps?': 'segmentation map, seg_map',
    r'void': 'ignore index, ignored',
    r'mirror(s|ed|ing)?': 'flip',
    r'judg(e[sd]?|ing)': 'evaluate',
    r'infer(s|red|ring)?': 'predict',
    r'turned|unturned': 'orientation, rotated',
    r'rectif(y|ies|ied)': 'ReLU',
    r'scratch': 'workspace',
    r'sentences?': 'message',
    r'(is|are) said': 'message, warning',
    r'network out|what leaves': 'export',
    r'places in|dicts in': 'walk, walk_dicts',
    r'asks(?! for)': 'requires',
}
NAMES = {  # whole names of functions, classes and variables: English elsewhere
    r'(def|class) (each|own|found|made|known|content|whole|kept|within|mark|places)(?= ?[:(])': 'the noun of the field',
    r'for (each|own|found|made|known) in|(?<!\.)\b(each|own|found|made|known) :?=(?! ?=)': 'the noun that it holds',
    r'for (\w+, )+(each|own|found|made|known) in|lambda (each|own|found|made|known)\b': 'the noun that it holds',
}
ALLOWED = '|'.join([
    r"is_?thing|thing_classes|no_such_thing|COCO-Stuff|stuffthingmaps|'thing'|\(thing\\?\)|<name>thing|thing\.xml",
    r"[Ss]tuff(_train|_beside|\\t)|'stuff'|\bstuff=|\.stuff\b",
    r"[Pp]hoto[Mm]etric|(other|one|these|many|first|three) things?|Where things",
    r'[\w.]*label_map(=[\w.]+)?|MapAggregator',  # mmseg's option; a class that aggregates maps
    r"infer\.py|test_infer\w*|(\bicconv_mm |['\"]|apis\.)infer\b|import infer|\binfer\(|\(infer\)",  # the tool
    r'infer_(request|shapes)',  # OpenVINO's, ONNX's
    r'(?i:from scratch)|\bturned (on|off|into|out)\b',
    r'\b(const )?void\b(?=[ *)>]*[\w:(*]*[({;,>]|\*| \*)|-> void',  # C++
    r"'[Vv]oid'|`[Vv]oid`|\(void\)|\\tVoid|c_void_p|--void|COCO's (stuff|things)",  # a class, an option of old, COCO's
    r"im\(age\|g\)\|photo\|picture\|rgb|\|photos?\b\??|\|pictures\b\??|/photos|photos/|'photos'",  # folders of users
    r'2026-\d\d-\d\d-[\w-]+',  # names of measurements
])  # fmt: skip


def words_of(line: str) -> list[str]:
    """The replaced words of a line with their replacements."""
    line = re.sub(ALLOWED, '', line)
    line = re.sub(r'(?<=[a-z0-9])(?=[A-Z])', ' ', line).replace('_', ' ').lower()
    words = {**WORDS, **NAMES}
    return [f'{match[0]} -> {use}' for word, use in words.items() for match in re.finditer(rf'\b({word})\b', line)]


def main() -> int:
    command = ['git', 'ls-files', *(sys.argv[1:] or FILES)]
    files = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    skipped = (Path(__file__).relative_to(ROOT), Path('CHANGELOG.md'))
    count = 0
    for file in map(Path, files):
        if file.suffix in ('.json', '.png', '.jpg', '.pt') or file in skipped:
            continue
        for number, line in enumerate((ROOT / file).read_text(errors='replace').splitlines(), start=1):
            for word in words_of(line):
                print(f'{file}:{number}: {word}')
                count += 1
    return 1 if count else 0


if __name__ == '__main__':
    sys.exit(main())
