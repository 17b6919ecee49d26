"""A network of ours against those of upstream that it replaces, and against its own plain composition."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from mmcv.cnn import fuse_conv_bn
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from icconv_mm.compat import init_weights
from icconv_mm.deployment import deploy
from icconv_mm.ops import use_backend
from icconv_workshop.benchmark import counters, harness
from icconv_workshop.benchmark.counters import count_backends
from icconv_workshop.benchmark.report import Figure, memory_figure
from icconv_workshop.benchmark.timing import Options

# half precision rounds after each of some fifty layers: 1e-2 between memory formats of one dense network
TOLERANCES = {**harness.TOLERANCES, torch.bfloat16: 5e-2, torch.float16: 1e-2}
# Of gradients by kind of device, in exact float32: half precision rounds half of some away in fifty layers. On a GPU
# torchvision's network differs by 6e-4 between memory formats, the composition of PyConvResNet-50 by 1.5e-3.
STEP_TOLERANCES = {'cpu': 1e-4, 'cuda': 5e-3}
POSE_PATTERNS = ('human_pose/ic_resnet50_k13', 'geometric_d6')  # published; where it cannot be read


class Case(NamedTuple):
    """What is timed.

    Attributes:
        name: Such as 'IC-R50-k9'.
        ours: Makes the network.
        upstream: Make the networks that it is held against, by name: the fastest of them counts.
        batch: Images.
        image: Height and width of the images, at full size.
        form: 'eager', 'deployed' (upstream's with folded batch norms), 'deployed / eager' (ours deployed,
            upstream's as it is) or 'step', forward and backward; 'as shipped' before it: NCHW images, formats unset.
        limit: Against upstream, at full size; None for none.
        notes: Remarks that go with the figures.
        memory: Largest peak of memory that is wanted, against upstream, both in the last of ``formats``; None where it
            is not measured.
        composition: Whether to time the plain composition of ours, too.
        dtype: Instead of that of the options.
        forward: ``(network, images) -> tensors``.
        loss: ``(network, images) -> scalar``, of a network in training mode; without one, a step has fixed gradients
            of the outputs, so that it is the network's alone.
    """

    name: str
    ours: Callable[[], nn.Module]
    upstream: Mapping[str, Callable[[], nn.Module]]
    batch: int
    image: tuple[int, int]
    form: str
    limit: float | None
    notes: dict[str, object]
    memory: float | None = None
    composition: bool = False
    dtype: str | None = None
    forward: Callable[[nn.Module, Tensor], Iterable[Tensor]] = lambda network, x: network(x)
    loss: Callable[[nn.Module, Tensor], Tensor] | None = None

    @property
    def label(self) -> str:
        """Name, size, dtype where it is of the case, and form."""
        height, width = self.image
        dtype = f'{self.dtype} ' if self.dtype else ''
        return f'{self.name} {self.batch}x3x{height}x{width} {dtype}{self.form}'

    @property
    def trains(self) -> bool:
        """Whether a step is timed."""
        return self.form.endswith('step')

    @property
    def formats(self) -> tuple[str, ...]:
        """The memory formats that are tried; in the last, peaks of memory are taken."""
        return ('NCHW',) if self.form.startswith('as shipped') else tuple(harness.FORMATS)


def compare(suite: str, case: Case, options: Options) -> list[Figure]:
    """The figures of a case: ours against upstream's fastest and, where the case says so, its composition; memory.

    Raises:
        Disagreement: If ours, its composition, or memory formats differ; where ours is deployed, also if it differs
            from ours eager.
    """
    options = replace(options, dtype=case.dtype or options.dtype)
    size = options.scaled(*case.image)
    x = torch.randn(case.batch, 3, *size, generator=torch.Generator().manual_seed(0))
    x = x.to(options.device, options.tensor_dtype)
    networks = {name: _build(make, options) for name, make in {**case.upstream, 'ours': case.ours}.items()}
    _check(case, networks, x, options)
    contenders = _contenders(networks, case, x, training=case.trains)
    backends = count_backends(contenders['ours'][case.formats[0]])
    results = harness.time_contenders(contenders, options)
    fastest = min(case.upstream, key=lambda name: results[name].timing.median)
    others = {name: f'{results[name].timing.median / results[fastest].timing.median:.2f}' for name in case.upstream}
    held = {'upstream': results[fastest], **{name: results[name] for name in results if name not in case.upstream}}
    full = options.scale == 1
    notes = {**case.notes, 'upstream': ' '.join(f'{name} {ratio}' for name, ratio in others.items())}
    notes['backends'] = ' '.join(f'{name} {number}' for name, number in sorted(backends.items()))
    if not full:
        notes['scaled to'] = 'x'.join(map(str, size))
    figures = harness.figures(suite, case.label, held, {'upstream': case.limit if full else None}, notes)
    if case.memory is not None:
        calls = [contenders[name][case.formats[-1]] for name in ('ours', fastest)]
        peaks = [counters.peak_memory(call, options.device) / 2**20 for call in calls]
        label = f'{case.label} peak memory: ours / upstream'
        figures.append(memory_figure(suite, label, *peaks, case.memory if full else None, notes))
    return figures


def _build(build: Callable[[], nn.Module], options: Options) -> nn.Module:
    torch.manual_seed(0)
    return build().to(options.device, options.tensor_dtype)


def _contenders(networks: dict[str, nn.Module], case: Case, x: Tensor, training: bool) -> dict:
    contenders = {name: _calls(name, network, case, x, training) for name, network in networks.items()}
    if case.composition:
        contenders['composition'] = {fmt: use_backend('reference')(call) for fmt, call in contenders['ours'].items()}
    return contenders


def _calls(
    name: str, network: nn.Module, case: Case, x: Tensor, training: bool
) -> dict[str, Callable[[], list[Tensor]]]:
    """The pass to time by memory format, each with a copy of the network in that format."""
    network.train(training)
    if 'deployed' in case.form and name == 'ours':
        network = deploy(network)
    elif case.form == 'deployed':
        network = fuse_conv_bn(copy.deepcopy(network))

    def make(network: nn.Module, x: Tensor) -> Callable[[], list[Tensor]]:
        if not case.trains:
            return harness.forward(lambda: case.forward(network, x))
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if case.loss is not None:
            return harness.step(lambda: [case.loss(network, x)], parameters)

        def outputs() -> list[Tensor]:
            return [out for out in case.forward(network, x) if out.requires_grad]  # not those of frozen stages

        return harness.step(outputs, parameters, _cotangents(outputs()))

    return harness.in_formats(make, network, x, formats=case.formats)


def _cotangents(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Fixed gradients of the outputs, which have an equal say whatever their sizes."""
    least = min(out.numel() for out in outputs)
    return [(harness.loss_weights(out) * (least / out.numel())).to(out.dtype) for out in outputs]


def _check(case: Case, networks: dict[str, nn.Module], x: Tensor, options: Options) -> None:
    """Raise Disagreement unless ours and the composition have the same results in every memory format.

    Where ours is deployed, ours eager must have them as well.

    Gradients are compared in float32, with running statistics and smooth activations. Those of a batch turn rounding in
    one layer into different gradients of the layers before it; and rounding turns single ReLUs on or off, which changes
    the gradients of small maps by percents, as a wrong filter would.
    """
    eager = case._replace(form='eager')
    equal = ['composition', 'ours'] if case.composition else ['ours']
    contenders = _contenders(networks, eager if case.trains else case, x, training=False)
    if 'deployed' in case.form:
        contenders = {'eager': _calls('ours', networks['ours'], eager, x, training=False), **contenders}
        equal = ['eager', *equal]
    harness.check_agreement(case.label, contenders, equal, harness.tolerance(options, TOLERANCES))
    if case.trains:
        smooth = {name: _smooth(network).float() for name, network in networks.items()}
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            contenders = _contenders(smooth, case, x.float(), training=False)
            harness.check_agreement(case.label, contenders, equal, STEP_TOLERANCES[x.device.type], harness.of_norm)


def _smooth(network: nn.Module) -> nn.Module:
    """A copy with SiLU in the place of ReLU."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
    return network


def pose_estimator(backbone: dict) -> nn.Module:
    """Backbone and head of bottom-up pose."""
    head = dict(type='icconv_mm.AEHead', in_channels=2048, num_keypoints=17)
    backbone = dict(**backbone, depth=50, out_indices=(3,))
    return random_model('mmpose', dict(type='icconv_mm.AEPoseEstimator', backbone=backbone, head=head))


def random_model(library: str, model: dict) -> nn.Module:
    """A model of a task library, with the same random weights each time."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(library):
        model = MODELS.build(model)
        init_weights(model)  # scores of a detector are low at first, as in training
    return model
