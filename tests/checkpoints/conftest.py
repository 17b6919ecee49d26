import convert_checkpoint
import pytest


@pytest.fixture
def tool():
    """The command that converts files."""
    return convert_checkpoint
