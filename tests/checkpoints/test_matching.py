"""What is reported about a checkpoint of another architecture."""

import pytest
import torch
from torch import nn

from icconv_mm.checkpoints.matching import ArchitectureMismatchError, check_covers, check_fits, compare
from icconv_mm.errors import InputError


def network(width=4, classes=3, blocks=2):
    backbone = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)) for _ in range(blocks)))
    return nn.ModuleDict({'backbone': backbone, 'head': nn.Linear(width, classes)})


class Renaming(nn.Linear):
    """Loads checkpoints in which its weight was called ``kernel``."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        if f'{prefix}kernel' in state_dict:
            state_dict[f'{prefix}weight'] = state_dict.pop(f'{prefix}kernel')
        super()._load_from_state_dict(state_dict, prefix, *args)


def test_fits_itself_and_its_distributed_form():
    weights = network().state_dict()
    check_fits(network(), {'state_dict': weights}, 'a.pth')
    check_fits(network(), weights, 'a.pth')
    check_fits(network(), {'state_dict': {f'module.{key}': value for key, value in weights.items()}}, 'a.pth')


def test_counters_of_batch_norm_may_be_absent():
    weights = {key: value for key, value in network().state_dict().items() if 'num_batches' not in key}
    check_fits(network(), weights, 'a.pth')


def test_differences_are_listed_by_module():
    weights = network(classes=5, blocks=3).state_dict()
    del weights['backbone.0.0.bias']
    with pytest.raises(ArchitectureMismatchError) as error:
        check_fits(network(), weights, 'other.pth')
    text = str(error.value)
    assert 'other.pth does not fit ModuleDict, nothing was loaded' in text
    assert 'missing in the checkpoint (1): backbone.0 (1: 0.bias)' in text
    assert 'not in the model (7): backbone.2 (7: 0.weight, ...)' in text
    assert 'head.weight [3, 4] in the model, [5, 4] in the checkpoint' in text


def test_long_lists_are_cut():
    with pytest.raises(ArchitectureMismatchError, match=r'not in the model \(112\).*and 4 more modules'):
        check_fits(network(), network(blocks=18).state_dict(), 'a.pth')


def test_accepted_where_told():
    weights = network(classes=5).state_dict()
    check_fits(network(), weights, 'a.pth', allow=['head'])
    with pytest.raises(ArchitectureMismatchError, match=r'backbone\.2'):
        check_fits(network(), network(classes=5, blocks=3).state_dict(), 'a.pth', allow=['head'])
    with pytest.raises(ArchitectureMismatchError):
        check_fits(network(), weights, 'a.pth', allow=['hea'])


def test_nothing_is_loaded():
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ArchitectureMismatchError):
        check_fits(model, network(classes=5).state_dict(), 'a.pth')
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_keys_that_the_model_itself_renames_fit():
    model = nn.Sequential(Renaming(2, 2))
    weights = {'0.kernel': torch.ones(2, 2), '0.bias': torch.ones(2)}
    assert compare(model, weights)
    before = model[0].weight.detach().clone()
    check_fits(model, weights, 'old.pth')
    assert torch.equal(model[0].weight, before)
    with pytest.raises(ArchitectureMismatchError):
        check_fits(model, {'0.kernel': torch.ones(3, 3), '0.bias': torch.ones(2)}, 'old.pth')


def test_pretrained_weights_may_hold_more_but_not_less():
    weights = network().state_dict()
    backbone = network()['backbone']
    check_covers(backbone, {'state_dict': weights}, 'a.pth', prefix='backbone.')
    check_covers(backbone, {'state_dict': weights}, 'a.pth', prefix='backbone')
    renamed = {'0.kernel': torch.ones(2, 2), '0.bias': torch.ones(2), 'x': torch.ones(1)}
    check_covers(nn.Sequential(Renaming(2, 2)), renamed, 'a.pth')
    with pytest.raises(ArchitectureMismatchError, match=r'a\.pth does not fit Sequential.*\n.*missing .*\(12\)'):
        check_covers(backbone, weights, 'a.pth')
    with pytest.raises(ArchitectureMismatchError, match=r'missing in the checkpoint \(6\): 2\.0'):
        check_covers(network(blocks=3)['backbone'], weights, 'a.pth', prefix='backbone.')


UNLIKE = {
    'a numpy array': lambda value: value.numpy(),
    'a list': lambda value: value.tolist(),
    'a sparse_coo tensor of float32': lambda value: value.to_sparse(),
    'a tensor of float32 without values': lambda value: value.to('meta'),
    'a tensor of complex64': lambda value: value.to(torch.complex64),
    'a tensor of int64': lambda value: value.long(),
    'a NoneType': lambda value: None,
}


@pytest.mark.parametrize('kind', UNLIKE)
def test_values_that_would_not_be_loaded_are_refused(kind):
    """torch skips some of these and turns others into numbers that nobody trained."""
    weights = network().state_dict()
    weights['head.weight'] = UNLIKE[kind](weights['head.weight'])
    message = f'head.weight is a tensor of float32 in the model, {kind} in the checkpoint'
    with pytest.raises(ArchitectureMismatchError, match=message):
        check_fits(network(), weights, 'a.pth')
    with pytest.raises(ArchitectureMismatchError, match=message):
        check_covers(network(), weights, 'a.pth')
    check_fits(network(), weights, 'a.pth', allow=['head'])


def test_values_of_another_precision_fit():
    weights = {
        key: value.half() if value.is_floating_point() else value for key, value in network().state_dict().items()
    }
    check_fits(network(), weights, 'a.pth')


@pytest.mark.parametrize('content', [[1, 2], torch.ones(3), 5, None, {'state_dict': {1: torch.ones(3)}}])
def test_content_that_is_no_dict_of_weights(content):
    with pytest.raises(InputError, match=r'a\.pth: expected '):
        check_fits(network(), content, 'a.pth')


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused_by_name(dtype, value):
    """But for those that the model has so itself."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model.register_buffer('limits', torch.tensor([-float('inf'), 1.0]))
    weights = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in model.state_dict().items()
    }
    check_fits(model, weights, 'net.pth')
    check_covers(model, weights, 'net.pth')
    weights['1.running_var'] = torch.tensor([1, value, 1, 1]).to(dtype)
    for check in (check_fits, check_covers):
        with pytest.raises(InputError, match=r'^net\.pth: 1\.running_var has values that are not finite, .*: such a'):
            check(model, weights, 'net.pth')
