"""How the losses of several tasks make one."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from icconv_mm.errors import InputError

UNCERTAINTY = 'uncertainty'


class LossBalance(nn.Module):
    """Weights of tasks: constants, or learned with the network.

    Learned weights are those of homoscedastic uncertainty (Kendall et al., https://arxiv.org/abs/1705.07115, eq. 10 in
    the form for classification): a task of loss L adds ``exp(-s) L + s / 2``, where s, the logarithm of its variance,
    is a parameter that starts at 0.

    Args:
        tasks: Names of the tasks.
        weights: A number for each task, 1 where none is given; or ``'uncertainty'``.

    Raises:
        InputError: For a task that does not exist, or a weight that is no finite number of 0 or more.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | str | None = None) -> None:
        super().__init__()
        if isinstance(weights, str) and weights != UNCERTAINTY:
            raise InputError(f'model.loss_weights: {weights!r}, expected numbers by task or {UNCERTAINTY!r}')
        self.log_variances = nn.ParameterDict()
        if isinstance(weights, str):
            self.log_variances.update({name: nn.Parameter(torch.zeros(())) for name in tasks})
            weights = None
        self.constants = dict(weights or {})
        for name, weight in self.constants.items():
            if name not in tasks:
                raise InputError(f'model.loss_weights: no task {name!r}; there are {", ".join(tasks)}')
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise InputError(f'model.loss_weights.{name}: expected a number of 0 or more, got {weight!r}')

    def forward(self, name: str) -> tuple[float | Tensor, dict[str, Tensor]]:
        """The weight of a task's losses, and what else the task adds to the loss and to the log."""
        if name not in self.log_variances:
            return self.constants.get(name, 1.0), {}
        log_variance = self.log_variances[name]
        weight = torch.exp(-log_variance)
        return weight, {f'{name}.loss_uncertainty': log_variance / 2, f'{name}.weight': weight.detach()}
