"""Gradients of several tasks for shared features: as torchjd's own backward pass, and harmless where none conflict."""

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn
from torch.nn.functional import avg_pool2d

from icconv_mm.errors import InputError
from icconv_mm.tasks.multitask.model import AGGREGATORS, SharedGradient


class Network:
    """Two levels of features, and the losses of three tasks, of which the first two conflict."""

    def __init__(self):
        torch.manual_seed(0)
        self.trunk, self.x = nn.Conv2d(3, 4, 3, padding=1), torch.randn(2, 3, 8, 8)
        self.wanted = nn.Conv2d(3, 4, 3, padding=1)(self.x).detach()
        nn.init.constant_(self.trunk.weight, 0.01)  # of small features, with gradients towards what is wanted
        nn.init.constant_(self.trunk.bias, 0.1)
        self.tasks = {
            'a': lambda fine, coarse: (fine - self.wanted).square().mean() + coarse.mean() / 100,
            'b': lambda fine, coarse: 5 * (fine + 0.7 * self.wanted).square().mean() + coarse.square().mean(),
            'c': lambda fine, coarse: fine.square().mean() / 10,
        }

    def features(self):
        fine = self.trunk(self.x)
        return [fine, avg_pool2d(fine, 2)]

    def losses(self):
        return {name: loss(*self.features()) for name, loss in self.tasks.items()}

    def gradient(self, balance, **others):
        """Of the trunk after one backward pass; ``others`` replace losses."""
        self.trunk.zero_grad()
        tasks = {**self.tasks, **others}
        shared = balance.share(self.features(), list(tasks))
        sum(loss(*shared[name]) for name, loss in tasks.items()).backward()
        return self.trunk.weight.grad.clone()


@pytest.mark.parametrize('name', AGGREGATORS)
def test_as_torchjd(name):
    """Against its own aggregation of a Jacobian."""
    aggregation = pytest.importorskip('torchjd.aggregation')
    pytest.importorskip('quadprog')
    network = Network()
    torch.manual_seed(1)  # some draw random numbers
    gradient = network.gradient(SharedGradient(name))
    network.trunk.zero_grad()
    levels = network.features()
    leaves = [level.detach().requires_grad_() for level in levels]
    losses = [loss(*leaves) for loss in network.tasks.values()]
    rows = [torch.autograd.grad(loss, leaves, materialize_grads=True, allow_unused=True) for loss in losses]
    jacobian = torch.stack([torch.cat([values.ravel() for values in row]) for row in rows]).double()
    torch.manual_seed(1)
    whole = getattr(aggregation, name)()(jacobian).float() * (3 if AGGREGATORS[name] else 1)
    parts = whole.split([level.numel() for level in levels])
    torch.autograd.backward(levels, [part.view_as(level) for part, level in zip(parts, levels)])
    torch.testing.assert_close(gradient, network.trunk.weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(('aggregator', 'lowered'), [('UPGrad', {'a', 'b'}), (None, {'b'})])
def test_no_task_loses(aggregator, lowered):
    """A small step of the features lowers both of two losses that conflict, where that of the sum raises one."""
    pytest.importorskip('quadprog')
    network = Network()
    del network.tasks['c']
    leaves = [level.detach().requires_grad_() for level in network.features()]
    before = {name: loss(*leaves) for name, loss in network.tasks.items()}
    shared = SharedGradient(aggregator).share(leaves, list(network.tasks))
    sum(loss(*shared[name]) for name, loss in network.tasks.items()).backward()
    with torch.no_grad():
        after = {name: loss(*(leaf - 1e-2 * leaf.grad for leaf in leaves)) for name, loss in network.tasks.items()}
    assert {name for name, loss in after.items() if loss < before[name]} == lowered


def test_watching_changes_nothing_and_logs_conflicts():
    network = Network()
    plain = network.gradient(SharedGradient())
    torch.testing.assert_close(network.gradient(SharedGradient(log=True)), plain)
    scalars = MessageHub.get_current_instance().log_scalars
    assert scalars['train/a.b.grad_cosine'].current() < 0 < scalars['train/a.grad_norm'].current()


def test_a_task_without_images_has_no_say():
    pytest.importorskip('quadprog')
    network = Network()

    def absent(fine, coarse):
        return fine.reshape(-1)[:0].sum() + coarse.reshape(-1)[:0].sum()

    gradient = network.gradient(SharedGradient('UPGrad'), c=absent)
    del network.tasks['c']
    torch.testing.assert_close(gradient, network.gradient(SharedGradient('UPGrad')))


@pytest.mark.parametrize('name', AGGREGATORS)
def test_an_overflow_is_left_to_the_loss_scaler(name):
    """A gradient that is not finite stays so, and ends nothing."""
    pytest.importorskip('torchjd')
    pytest.importorskip('quadprog')
    gradient = Network().gradient(SharedGradient(name), c=lambda fine, coarse: (fine * torch.inf).sum())
    assert not gradient.isfinite().all()


def test_unknown_aggregator():
    with pytest.raises(InputError, match=r"model\.aggregator: 'upgrade', expected one of UPGrad, "):
        SharedGradient('upgrade')
