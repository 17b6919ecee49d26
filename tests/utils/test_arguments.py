import pytest

from icconv_mm.utils.arguments import check_all_positive, check_positive


@pytest.mark.parametrize('given', [0, -1, 1.0, '8', None, [8]], ids=repr)
def test_what_is_no_positive_integer(given):
    check_positive(width=8)
    with pytest.raises(ValueError, match=r'^width must be a positive integer, got '):
        check_positive(channels=8, width=given)


@pytest.mark.parametrize('given', [8, None, (), [8, 0], ['8'], 'ab'], ids=repr)
def test_what_is_no_list_of_them(given):
    check_all_positive(strides=(1, 2), kernels=[3])
    with pytest.raises(ValueError, match=r'^strides must be a list of positive integers, got '):
        check_all_positive(strides=given)
