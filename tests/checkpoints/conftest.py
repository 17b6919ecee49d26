import pytest

import convert_checkpoint


@pytest.fixture
def tool():
    """The command that converts files."""
    return convert_checkpoint
