"""The constraints are those of supported versions, read for the Python at hand."""

import sys

from icconv_mm import versions
from icconv_mm.install_openmmlab import constraints

PINS = constraints.read_pins((constraints.constraints_folder() / 'common.txt').read_text())


def test_versions_agree_with_what_is_supported():
    pins = {name: PINS[distributions[0]] for name, (distributions, *_) in versions.SUPPORTED.items() if name != 'torch'}
    for name, pin in pins.items():
        _, low, high = versions.SUPPORTED[name]
        assert versions._release(low) <= versions._release(pin) < versions._release(high), name
    named = set(constraints.ALL) - set(constraints.TORCH)
    assert {constraints.canonical(name) for name in named} - PINS.keys() == set()
    assert {'mmengine', 'mmdet', 'mmsegmentation', 'mmpose', 'mmpretrain'} <= named


def test_pins_of_this_python():
    text = 'a==1; python_version < "3.11"\na==2; python_version >= "3.11"\nB_c==3\n# d==4'
    assert constraints.read_pins(text) == {'a': '1' if sys.version_info < (3, 11) else '2', 'b-c': '3'}
