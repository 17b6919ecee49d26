"""Schedules do what they are asked in trainings of any length, fresh and resumed."""

import copy

import pytest

pytest.importorskip('mmengine')

import schedules
from schedules import RATE, Training

from icconv_mm.app.runs.schedules import stretch
from icconv_mm.errors import InputError

COSINE = dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, eta_min_ratio=0.01)
WARM_UP = dict(type='LinearLR', by_epoch=False, start_factor=0.01, begin=0)


def stretched(schedulers, ratio):
    copies = [dict(scheduler) for scheduler in schedulers]
    for scheduler in copies:
        stretch(scheduler, scheduler['type'], ratio)
    return copies


@pytest.mark.parametrize('kind', ['LinearLR', 'ConstantLR', 'LinearMomentum', 'ConstantMomentum'])
@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('end', [1, 2, 3])
def test_a_short_warm_up_ends(kind, by_epoch, end):
    scheduler = dict(type=kind, by_epoch=by_epoch, begin=0, end=10)
    (short,) = stretched([scheduler], end / 10)
    name, full = ('lr', RATE) if kind.endswith('LR') else ('momentum', 0.9)
    values = [value for (value,) in Training([short], epochs=5).run(name=name)]
    assert values[end - 1 :] == pytest.approx([full] * (6 - end))
    assert all(value < full * 0.99 for value in values[: end - 1])


def test_a_warm_up_of_one_epoch_of_one_iteration_ends():
    """How many iterations it has is known when the loader is built."""
    warm_up = dict(type='LinearLR', start_factor=1 / 16, by_epoch=True, begin=0, end=1, convert_to_iter_based=True)
    assert Training([warm_up], epochs=3, epoch=1).run() == [(RATE,)] * 3
    assert Training([warm_up], epochs=1, epoch=4).run()[-1] == pytest.approx((RATE,))


def test_a_factor_that_is_meant_to_stay_stays():
    """RTMO's recipe raises its rate by a ``ConstantLR`` of one epoch."""
    scheduler = dict(type='ConstantLR', by_epoch=True, factor=0.5, begin=2, end=3)
    assert Training([scheduler], epochs=4).run() == [(RATE,)] * 2 + [(RATE / 2,)] * 2
    assert Training(stretched([scheduler], 0.5), epochs=3).run() == [(RATE,)] + [(RATE / 2,)] * 2


def test_a_decay_of_one_step_keeps_the_full_rate():
    decay = dict(type='LinearLR', start_factor=1.0, end_factor=0.01, begin=0, end=100)
    assert Training(stretched([decay], 0.01), epochs=1).run() == [(RATE,)]


def test_parts_of_epochs_keep_their_proportion():
    """A twentieth of 100 epochs as warm-up is a twentieth of one."""
    recipe = [dict(WARM_UP, by_epoch=True, convert_to_iter_based=True, end=5), dict(COSINE, begin=5, end=100, T_max=95)]
    values = [value for (value,) in Training(stretched(recipe, 0.01), epochs=1, epoch=100).run()]
    assert values.index(max(values)) in (4, 5) and max(values) == pytest.approx(RATE)
    assert values[-1] < 0.011 * RATE


def test_decays_keep_their_end():
    for decay in (dict(type='ExponentialLR', gamma=0.9), dict(type='StepLR', step_size=2, gamma=0.5)):
        for length in (5, 10, 200):
            (value,) = Training(stretched([dict(decay)], length / 100), epochs=length).run()[-1]
            steps = length / 100 * decay.get('step_size', 1)
            assert value == pytest.approx(RATE * decay['gamma'] ** ((length - 1) / steps // 1), rel=0.3)


def test_a_warm_up_longer_than_the_training_is_reported(caplog):
    Training([dict(WARM_UP, end=500)], epochs=3, epoch=10)
    assert 'LinearLR ends after 500 iterations, the training after 30: it does not reach its end' in caplog.text


def test_one_cycle_needs_steps_for_its_rise():
    cycle = dict(type='OneCycleLR', eta_max=RATE, by_epoch=False)
    assert max(Training([cycle], iters=100).run()) == pytest.approx((RATE,), rel=1e-3)
    with pytest.raises(InputError, match=r'OneCycleLR has 0.9 iterations for its rise \(pct_start\)'):
        Training([cycle], iters=3)


SCHEDULES = {
    'cosine in iterations': [dict(WARM_UP, end=5), dict(COSINE, T_max=8)],
    'flat, then cosine': [dict(WARM_UP, end=5), dict(COSINE, begin=4, T_max=4)],
    'poly': [dict(type='PolyLR', eta_min=0.001, power=0.9, begin=0, end=8, by_epoch=True)],
    'steps': [dict(WARM_UP, end=3), dict(type='MultiStepLR', milestones=[4, 7], begin=0, end=8)],
    'cosine and restarts': [
        dict(type='CosineRestartLR', periods=[3, 5], restart_weights=[1, 0.5], eta_min=0.01, by_epoch=True),
        dict(type='CosineAnnealingMomentum', eta_min=0.5, T_max=8, by_epoch=True),
    ],
    'one cycle': [dict(type='OneCycleLR', eta_max=1.0, by_epoch=True, convert_to_iter_based=True)],
    'exponential': [dict(type='ExponentialLR', gamma=0.8), dict(type='LinearMomentum', start_factor=0.5, end=6)],
}


@pytest.mark.parametrize('optimizers', [schedules.sgd, schedules.adam, schedules.several])
@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize('iters', [False, True])
def test_a_longer_training_goes_on_as_from_the_start(name, optimizers, iters):
    """The values of epochs 9 to 16 are bit by bit those of a training of 16, also for several optimisers."""
    short, long = SCHEDULES[name], stretched(SCHEDULES[name], 2)
    lengths = [dict(iters=24), dict(iters=48)] if iters else [dict(epochs=8, epoch=3), dict(epochs=16, epoch=3)]
    if iters:
        short, long = ([dict(scheduler, by_epoch=False) for scheduler in schedulers] for schedulers in (short, long))
        for scheduler in (*short, *long):
            scheduler.pop('convert_to_iter_based', None)
    first = Training(short, **lengths[0], optimizers=optimizers)
    first.run()
    whole = Training(long, **lengths[1], optimizers=optimizers)
    whole.run(24)
    resumed = Training(long, **lengths[1], optimizers=optimizers).go_on(first.save())
    for value in ('lr', 'momentum') if optimizers is not schedules.adam or 'Momentum' in str(short) else ('lr',):
        assert resumed.values(value) == whole.values(value)
    assert resumed.save()['param_schedulers'] == whole.save()['param_schedulers']
    assert resumed.run() == whole.run()


@pytest.mark.parametrize('name', SCHEDULES)
def test_what_works_is_left_as_mmengine_has_it(name):
    ours, theirs = (Training(SCHEDULES[name], epochs=8, epoch=3, checked=checked) for checked in (True, False))
    assert ours.run() == theirs.run()
    assert ours.save()['param_schedulers'] == theirs.save()['param_schedulers']


@pytest.mark.parametrize('name', SCHEDULES)
def test_a_training_of_the_same_length_goes_on_as_it_was(name):
    """Also where something else has changed the rate, of which the schedule knows nothing."""
    whole = Training(SCHEDULES[name], epochs=8, epoch=3)
    whole.run(12)
    whole.optim_wrapper.optimizer.param_groups[0]['lr'] *= 0.123
    resumed = Training(SCHEDULES[name], epochs=8, epoch=3).go_on(whole.save())
    assert resumed.run() == whole.run()


def test_a_schedule_with_more_schedulers_goes_on_as_from_the_start():
    first = Training([], epochs=4, epoch=3)
    first.run()
    long = SCHEDULES['cosine in iterations']
    whole = Training(long, epochs=8, epoch=3)
    whole.run(12)
    assert Training(long, epochs=8, epoch=3).go_on(first.save()).run() == whole.run()


def test_the_rate_of_the_checkpoint_stays():
    """As where mmengine resumes: only the schedule is that of the config."""
    first, long = Training([dict(COSINE, T_max=8)], epochs=8, epoch=3), [dict(COSINE, T_max=16)]
    first.run()
    whole = Training(long, epochs=16, epoch=3)
    whole.run(24)
    resumed = Training(long, epochs=16, epoch=3, optimizers=lambda: schedules.sgd(3.0)).go_on(first.save())
    assert resumed.run() == whole.run()


def test_epochs_of_another_length_go_on_at_the_same_epoch():
    """With half the iterations an epoch, the second half of the epochs has the second half of the schedule."""
    first = Training([dict(COSINE, T_max=8)], epochs=8, epoch=10)
    first.run(40)
    whole = Training([dict(COSINE, T_max=8)], epochs=8, epoch=5)
    whole.run(20)
    resumed = Training([dict(COSINE, T_max=8)], epochs=8, epoch=5).go_on(first.save())
    assert resumed.run(20) == whole.run()


PLATEAU = dict(type='ReduceOnPlateauLR', monitor='acc', rule='greater', patience=0, factor=0.5)


def test_a_plateau_keeps_what_it_learned():
    first = Training([PLATEAU], epochs=4)
    for accuracy in (0.5, 0.4):
        first.param_schedulers[0].step(dict(acc=accuracy))
    assert first.values() == (RATE / 2,)
    resumed = Training([PLATEAU], epochs=8).go_on(first.save())
    assert resumed.values() == (RATE / 2,)
    plateau = resumed.param_schedulers[0]
    assert (plateau.best, plateau.end) == (0.5, 8)


def test_a_plateau_beside_another_schedule_is_refused():
    checkpoint = Training([dict(WARM_UP, end=10), PLATEAU], epochs=4, epoch=5).save()
    Training([dict(WARM_UP, end=10), PLATEAU], epochs=8, epoch=5).go_on(copy.deepcopy(checkpoint))
    message = r'epoch_1.pth: .*LinearLR.end 10 there, 20 here.* ReduceOnPlateauLR depends on validations'
    with pytest.raises(InputError, match=message):
        Training([dict(WARM_UP, end=20), PLATEAU], epochs=8, epoch=5).go_on(checkpoint)
