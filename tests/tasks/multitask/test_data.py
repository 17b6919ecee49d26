"""The labels of all tasks move with the image, as each library's own pipeline moves its own."""

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, MODELS, init_default_scope
from multitask_recipes import SINGLE

from icconv_mm.config_tree import walk_dicts
from icconv_mm.errors import InputError
from icconv_mm.registry import TRANSFORMS
from icconv_mm.tasks.multitask.data import TaskMetric

FLIP = 'RandomFlip'


def with_flip(pipeline, prob):
    for transform in pipeline:
        if transform.type.endswith(FLIP):
            transform.prob = prob
    return pipeline


@pytest.fixture
def built(load):
    """A dataset of a recipe that always or never flips its images."""

    def build(name, prob, phase='train', **changes):
        cfg = load(name)
        settings = copy.deepcopy(cfg[f'{phase}_dataloader'].dataset)
        with_flip(settings.pipeline, prob)
        settings.update(changes)
        return DATASETS.build(settings)

    return build


@pytest.fixture
def both(built, joint_recipe):
    """Items of the joint set and of a single-task one, by path of the image."""

    def items_of(task, prob):
        joint = built(joint_recipe, prob)
        items = {item['data_samples'].img_path: item for item in joint}
        init_default_scope('mmengine')
        single = built(SINGLE[task], prob)
        return [(items[item['data_samples'].img_path], item) for item in single]

    return items_of


@pytest.fixture
def joint_recipe():
    from multitask_recipes import MULTITASK

    return MULTITASK


@pytest.mark.parametrize('prob', [0.0, 1.0])
def test_images_boxes_and_masks(both, prob):
    pairs = both('instance', prob)
    assert pairs
    for joint, single in pairs:
        assert torch.equal(joint['inputs'], single['inputs'])
        one, other = joint['data_samples'].instance, single['data_samples']
        for field in ('gt_instances', 'ignored_instances'):
            mine, theirs = getattr(one, field), getattr(other, field)
            assert torch.equal(mine.bboxes.tensor, theirs.bboxes.tensor)
            assert torch.equal(mine.labels, theirs.labels)
            assert np.array_equal(mine.masks.masks, theirs.masks.masks)
        assert one.img_id == other.img_id and one.flip == other.flip == bool(prob)


@pytest.mark.parametrize('prob', [0.0, 1.0])
def test_seg_maps(both, prob):
    for joint, single in both('semantic', prob):
        assert torch.equal(joint['data_samples'].semantic.gt_sem_seg.data, single['data_samples'].gt_sem_seg.data)


@pytest.mark.parametrize('prob', [0.0, 1.0])
def test_people(both, prob):
    """Joints, their targets and the mask of crowds; flipped, with left and right swapped."""
    pairs = both('pose', prob)
    assert any(len(single['data_samples'].gt_instances.keypoints) for _, single in pairs)
    assert any(not single['data_samples'].gt_fields.heatmap_mask.all() for _, single in pairs)
    for joint, single in pairs:
        one, other = joint['data_samples'].pose, single['data_samples']
        np.testing.assert_allclose(one.gt_instances.keypoints, other.gt_instances.keypoints, atol=1e-4)
        assert np.array_equal(one.gt_instances.keypoints_visible, other.gt_instances.keypoints_visible)
        torch.testing.assert_close(one.gt_fields.heatmaps, other.gt_fields.heatmaps)
        # a pixel of the mask belongs to the crowd by half: its border may move by one
        differing = (one.gt_fields.heatmap_mask != other.gt_fields.heatmap_mask).float().mean()
        assert differing < 0.01
        indices = one.gt_instance_labels.keypoint_indices, other.gt_instance_labels.keypoint_indices
        assert torch.equal(*indices)


def test_keypoints_follow_resize_flip_and_crop():
    """A keypoint on the one bright pixel of an image is on its brightest pixel afterwards."""
    warp = TRANSFORMS.build(dict(type='icconv_mm.WarpPeople'))
    chain = [
        TRANSFORMS.build(dict(type='mmdet.Resize', scale=(96, 96), keep_ratio=False)),
        TRANSFORMS.build(dict(type='mmdet.RandomFlip', prob=1.0)),
        TRANSFORMS.build(dict(type='mmdet.RandomCrop', crop_size=(64, 64))),
    ]
    checked = 0
    for _ in range(20):
        image = np.zeros((32, 32, 3), np.uint8)
        x, y = np.random.randint(4, 28, 2)
        image[y, x] = 255
        results = dict(img=image, img_shape=(32, 32), ori_shape=(32, 32), bbox=np.zeros((1, 4), np.float32))
        results.update(keypoints=np.float32([[[x, y]]]), keypoints_visible=np.ones((1, 1)), flip_indices=[0])
        for transform in chain:
            results = transform(results)
        results = warp(results)
        if (results['img'] > 0).sum() == (3 * 3 + 16) * 3:  # whole: a pixel of thrice the size, with its slopes
            peak = np.argwhere(results['img'][..., 0] == results['img'].max()).mean(0)[::-1]
            np.testing.assert_allclose(results['keypoints'][0, 0], peak, atol=1e-3)
            checked += 1
    assert checked >= 3


def test_swaps_left_and_right_where_flipped():
    warp = TRANSFORMS.build(dict(type='icconv_mm.WarpPeople'))

    def keypoints(matrix):
        points = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
        results = dict(keypoints=points, keypoints_visible=np.float32([[0, 1, 2]]), flip_indices=[0, 2, 1])
        results.update(bbox=np.zeros((1, 4), np.float32), homography_matrix=np.array(matrix))
        return warp(results)['keypoints_visible'][0].tolist()

    assert keypoints(np.eye(3)) == [0, 1, 2]
    assert keypoints(np.diag([-1, 1, 1])) == keypoints(np.diag([1, -1, 1])) == [0, 2, 1]
    assert keypoints(np.diag([-1, -1, 1])) == [0, 1, 2]  # a turn by 180 degrees


def test_perspective_is_refused():
    warp = TRANSFORMS.build(dict(type='icconv_mm.WarpPeople'))
    with pytest.raises(InputError, match=r'1\.jpg: keypoints follow only affine transforms, got'):
        warp(dict(img_path='1.jpg', homography_matrix=np.array([[1, 0, 0], [0, 1, 0], [0.1, 0, 1]])))


def test_two_tasks_with_boxes_and_two_with_maps(joint_cfg):
    """Boxes of several tasks travel in one list, maps in one array, and part again."""
    settings = joint_cfg.train_dataloader.dataset
    with_flip(settings.pipeline, 1.0)
    people = copy.deepcopy(settings.datasets.instance)
    people.metainfo = dict(classes=('person',))
    settings.datasets.update(people=people, again=copy.deepcopy(settings.datasets.semantic))
    load, pack = settings.pipeline[1], settings.pipeline[-1]
    load.update(people=load.instance, again=load.semantic)
    pack.update(people=pack.instance, again=pack.semantic)
    seen = 0
    for item in DATASETS.build(settings):
        sample = item['data_samples']
        instances, of_all = sample.people.gt_instances, sample.instance.gt_instances
        chosen = of_all.labels == 0
        assert torch.equal(instances.bboxes.tensor, of_all.bboxes.tensor[chosen])
        assert np.array_equal(instances.masks.masks, of_all.masks.masks[chosen.numpy()])
        assert not instances.labels.any()
        assert torch.equal(sample.again.gt_sem_seg.data, sample.semantic.gt_sem_seg.data)
        seen += len(instances)
    assert seen


def test_unlisted_image_has_no_labels_for_the_task(joint_cfg):
    settings = joint_cfg.train_dataloader.dataset
    settings.datasets.pose.keep_empty = False
    dataset = DATASETS.build(settings)
    having = ['pose' in item['data_samples'] for item in dataset]
    assert len(dataset) == 8 and 0 < sum(having) < 8
    assert all('semantic' in item['data_samples'] for item in dataset)


def disjoint(settings, *names):
    """Sets that are labelled for one task each."""
    parts = []
    for name in names:
        part = copy.deepcopy(settings)
        part.datasets = {name: part.datasets[name]}
        parts.append(part)
    return dict(type='icconv_mm.MultiTaskConcatDataset', datasets=parts)


def test_disjoint_sets(joint_cfg):
    from mmdet.datasets.samplers import MultiSourceSampler

    dataset = DATASETS.build(disjoint(joint_cfg.train_dataloader.dataset, 'instance', 'pose'))
    assert len(dataset) == 16 and set(dataset.metainfo) == {'instance', 'pose'}
    batch = iter(MultiSourceSampler(dataset, batch_size=4, source_ratio=[3, 1], seed=0))
    names = [next(iter(dataset[next(batch)]['data_samples'].keys())) for _ in range(4)]
    assert names == ['instance'] * 3 + ['pose']


def test_preprocessor_pads_once_for_all(joint_cfg):
    """Images of different sizes: what each library's own preprocessor would have said."""
    init_default_scope('mmengine')
    model = MODELS.build(joint_cfg.model)
    dataset = DATASETS.build(joint_cfg.val_dataloader.dataset)
    items = [copy.deepcopy(dataset[i]) for i in range(2)]
    items[1]['inputs'] = items[1]['inputs'][:, :80, :100]
    data = dict(inputs=[item['inputs'] for item in items], data_samples=[item['data_samples'] for item in items])
    data = model.data_preprocessor(data, False)
    assert data['inputs'].shape == (2, 3, 128, 128)
    sample = data['data_samples'][1]
    assert sample.instance.batch_input_shape == (128, 128) and sample.instance.pad_shape == (96, 128)
    assert sample.semantic.padding_size == [0, 28, 0, 48] and sample.semantic.pad_shape == (128, 128)
    scale = np.array([100, 80]) / 128  # of an image that was drawn with 128 x 128 pixels
    assert sample.pose.input_size == (128, 128)
    np.testing.assert_allclose(sample.pose.input_scale, 128 / scale)
    np.testing.assert_allclose(sample.pose.input_center - sample.pose.input_scale / 2, 0.5 / scale - 0.5, atol=1e-5)


# --- bad input


def test_datasets_without_a_common_image(joint_cfg, miniature):
    settings = joint_cfg.train_dataloader.dataset
    settings.datasets.pose.update(
        ann_file='annotations/person_keypoints_val.json', data_prefix=dict(img=f'{miniature}/val/')
    )
    message = r'datasets\.instance has 8 images and datasets\.pose has 4, none in common .*MultiTaskConcatDataset'
    with pytest.raises(InputError, match=message):
        DATASETS.build(settings)


def test_sets_with_other_classes(joint_cfg):
    settings = disjoint(joint_cfg.train_dataloader.dataset, 'instance', 'instance')
    settings['datasets'][1].datasets['instance'].metainfo = dict(classes=('person',))
    with pytest.raises(InputError, match=r"datasets\.1, instance: classes \('person',\), before it \('person', 'ball'"):
        DATASETS.build(settings)


def test_masks_for_some_boxes_only(joint_cfg):
    settings = joint_cfg.train_dataloader.dataset
    settings.datasets.people = copy.deepcopy(settings.datasets.instance)
    settings.pipeline[1].people = dict(type='mmdet.LoadAnnotations')
    dataset = DATASETS.build(settings)
    with pytest.raises(InputError, match='need masks, or none: instance with masks, people without masks'):
        dataset[0]


@pytest.mark.parametrize(
    ('transform', 'behind'),
    [
        (dict(type='mmdet.MinIoURandomCrop'), 'keypoints'),
        (dict(type='mmdet.RandomAffine'), 'both'),
        (dict(type='RandomChoice', transforms=[[dict(type='mmdet.RandomShift')]]), 'both'),
        (dict(type='mmseg.RandomCrop', crop_size=(96, 96)), 'both'),
        (dict(type='RandomFlip', prob=0.5), 'keypoints'),
        (dict(type='RandomResize', scale=(96, 96)), 'keypoints'),
        (dict(type='RandomResize', scale=(96, 96), resize_type='mmdet.Resize'), None),
        (dict(type='mmdet.Rotate'), None),
        (dict(type='mmdet.RandomCrop', crop_size=(96, 96)), None),
        (dict(type='mmdet.AutoAugment', policies=[[dict(type='mmdet.Equalize'), dict(type='mmdet.ShearX')]]), None),
        (dict(type='mmdet.PhotoMetricDistortion'), None),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else str(value),
)
def test_transforms_that_leave_labels_behind(joint_cfg, joint_model, transform, behind):
    from icconv_mm.app.adapters.multitask_checks import check_model

    def check(names):
        settings = copy.deepcopy(joint_cfg.train_dataloader.dataset)
        settings.datasets = {name: settings.datasets[name] for name in names}
        settings.pipeline[-1] = {key: value for key, value in settings.pipeline[-1].items() if key in ('type', *names)}
        settings.pipeline.insert(2, transform)
        check_model(joint_model, DATASETS.build(settings), 'train', training=False)

    for names, label in ((['instance', 'pose'], 'keypoints'), (['instance', 'semantic'], 'segmentation maps')):
        if behind in (label, 'both'):
            with pytest.raises(
                InputError, match=rf'train\.pipeline: \w+ of \w+ moves the image, and {label} stay behind'
            ):
                check(names)
        else:
            check(names)


def test_padding_of_a_test_pipeline_is_no_part_of_the_image(joint_cfg):
    """Where a network finds something is where it is in the file, as without the padding."""
    settings = joint_cfg.val_dataloader.dataset
    resize = next(transform for transform in settings.pipeline if transform.type == 'mmdet.Resize')
    resize.update(scale=(96, 64), keep_ratio=True)
    settings.pipeline.insert(settings.pipeline.index(resize) + 1, dict(type='mmdet.Pad', size=(128, 96)))
    preprocessor = MODELS.build(joint_cfg.model.data_preprocessor)
    item = DATASETS.build(settings)[0]
    data = preprocessor(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), False)
    sample = data['data_samples'][0]
    assert data['inputs'].shape == (1, 3, 96, 128) and sample.labels_of_file
    assert sample.semantic.padding_size == [0, 64, 0, 32]  # 64 x 64 of 96 x 128 pixels
    np.testing.assert_allclose(sample.pose.input_scale, [256, 192])


def test_keypoint_file_of_another_version(joint_cfg, miniature, tmp_path):
    from icconv_mm.app.adapters.multitask_checks import check_people_are_instances

    path = miniature / 'annotations/person_keypoints_train.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['id'] = 10**6
    (tmp_path / 'people.json').write_text(json.dumps(content))
    settings = joint_cfg.train_dataloader.dataset
    dataset = DATASETS.build(copy.deepcopy(settings))
    check_people_are_instances(dataset, 'train')
    settings.datasets.pose.ann_file = str(tmp_path / 'people.json')
    message = r'train\.datasets\.pose\.ann_file: 1 of the \d+ annotation ids of .*people\.json are not in .*1000000'
    with pytest.raises(InputError, match=message):
        check_people_are_instances(DATASETS.build(settings), 'train')


@pytest.mark.parametrize('concatenated', [False, True])
def test_class_names_need_no_file(joint_cfg, concatenated):
    """As upstream's inferencers ask for them, on a machine that has the weights alone."""
    dataset = joint_cfg.test_dataloader.dataset
    for node in walk_dicts(dataset):
        if node.get('ann_file'):
            node['ann_file'] = 'gone.json'
    if concatenated:
        dataset = dict(type='icconv_mm.MultiTaskConcatDataset', datasets=[dataset])
    built = DATASETS.build({**dataset, 'lazy_init': True})
    assert len(built.metainfo['instance']['classes']) == 6
    with pytest.raises(FileNotFoundError, match='gone'):
        built.full_init()


# --- metrics


@pytest.mark.parametrize('round_up', [True, False])
def test_images_that_a_sampler_repeats_count_once(monkeypatch, round_up):
    """Three processes, seven images, three of them labelled for poses."""
    from mmengine.dataset import DefaultSampler
    from mmengine.evaluator import BaseMetric

    class Seen(BaseMetric):
        default_prefix = 'seen'

        def process(self, data_batch, data_samples):
            self.results.extend(sample['img_id'] for sample in data_samples)

        def compute_metrics(self, results):
            return {'images': list(results)}

    metric = TaskMetric('pose', {'type': Seen})
    sampler, images = DefaultSampler(range(7), shuffle=False, round_up=round_up), []
    for rank in range(3):
        monkeypatch.setattr('icconv_mm.tasks.multitask.data.get_dist_info', lambda rank=rank: (rank, 3))
        sampler.rank, sampler.world_size = rank, 3
        sampler.num_samples = 3 if round_up else len(range(rank, 7, 3))
        sampler.total_size = 9 if round_up else 7
        samples = [{'pose': {'img_id': i}} if i in (0, 1, 6) else {} for i in sampler]
        assert len(samples) == sampler.num_samples
        for batch in (samples[:2], samples[2:]):
            metric.process(None, batch)
        images += metric.evaluate(7)['pose/seen/images']
    assert sorted(images) == [0, 1, 6]
