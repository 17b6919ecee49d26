import pytest

from icconv_mm.errors import InputError
from icconv_mm.utils.arguments import check_all_positive, check_not_negative, check_positive, check_probability


@pytest.mark.parametrize('given', [0, -1, 1.0, '8', None, [8]], ids=repr)
def test_what_is_no_positive_integer(given):
    check_positive(width=8)
    with pytest.raises(InputError, match=r'^width must be a positive integer, got '):
        check_positive(channels=8, width=given)


@pytest.mark.parametrize('given', [8, None, (), [8, 0], ['8'], 'ab'], ids=repr)
def test_what_is_no_list_of_them(given):
    check_all_positive(strides=(1, 2), kernels=[3])
    with pytest.raises(InputError, match=r'^strides must be a list of positive integers, got '):
        check_all_positive(strides=given)


@pytest.mark.parametrize('given', [-1, 0.0, '0', None], ids=repr)
def test_what_is_no_number_from_0_on(given):
    check_not_negative(padding=0)
    with pytest.raises(InputError, match=r'^padding must be 0 or more, got '):
        check_not_negative(padding=given)


@pytest.mark.parametrize('given', [1, -0.1, float('nan'), '0.5', None], ids=repr)
def test_what_is_no_probability_below_1(given):
    check_probability(drop=0, rate=0.5)
    with pytest.raises(InputError, match=r'^rate must be at least 0 and below 1, got '):
        check_probability(rate=given)
