import json

import pytest

from icconv_mm.errors import InputError


@pytest.fixture
def write(tmp_path, mmpose):
    """A function that writes annotations, one image per list of them, and builds the dataset."""

    def build(*images, kind='BottomupCocoDataset', count=17, **options):
        from mmpose.registry import DATASETS

        annotations = []
        for image_id, people in enumerate(images, start=1):
            for person in people:
                given = dict(
                    id=len(annotations) + 1, image_id=image_id, category_id=1, iscrowd=0, bbox=[1, 1, 9, 9], area=81,
                    segmentation=[[1, 1, 10, 1, 10, 10]], keypoints=[5, 5, 2] * count, num_keypoints=count,
                )  # fmt: skip
                annotations.append({key: value for key, value in {**given, **person}.items() if value is not ...})
        entries = [dict(id=i, file_name=f'{i}.jpg', width=20, height=20) for i in range(1, len(images) + 1)]
        content = dict(images=entries, annotations=annotations, categories=[dict(id=1, name='person')])
        (tmp_path / 'people.json').write_text(json.dumps(content))
        settings = dict(ann_file=str(tmp_path / 'people.json'), data_mode='bottomup')
        return DATASETS.build(dict(type=kind if '.' in kind else f'icconv_mm.{kind}', **settings, **options))

    return build


def test_wrong_number_of_keypoints_is_named(write):
    with pytest.raises(InputError, match=r'people.json: annotation 2 of image 1 has 48 values.*expected 51'):
        write([{}, {'keypoints': [5, 5, 2] * 16}])
    with pytest.raises(InputError, match=r'has 51 values.*expected 42 .*14 keypoints'):
        write([{}], kind='BottomupCrowdPoseDataset')


def test_crowds_and_people_without_keypoints_are_masked(write):
    blank = dict(keypoints=[0] * 51, num_keypoints=0)
    crowd = dict(blank, iscrowd=1, segmentation=dict(size=[20, 20], counts=[0, 400]))
    info = write([{}, blank, crowd]).get_data_info(0)
    assert len(info['invalid_segs']) == 2
    assert info['keypoints_visible'].any(1).tolist() == [True, False, False]


def test_images_without_people_are_left_out_of_training_unless_kept(write):
    assert len(write([{}], [])) == 1
    dataset = write([{}], [], keep_empty=True)
    assert len(dataset) == 2
    info = dataset.get_data_info(1)
    assert info['keypoints'].shape == (0, 17, 2) and info['img_path'].endswith('2.jpg')
    assert len(write([{}], [], test_mode=True)) == 2


def test_what_would_drop_people_or_end_in_pycocotools_is_named(write):
    crowd = dict(keypoints=[0] * 51, num_keypoints=0, iscrowd=1)
    with pytest.raises(InputError, match=r"people\.json: image 1 \(1\.jpg\), annotation 2: no 'bbox', which keypoints"):
        write([{}, {'bbox': None}])
    with pytest.raises(InputError, match=r'people\.json: image 2 \(2\.jpg\), annotation 2: the runs have 300 pixels'):
        write([{}], [dict(crowd, segmentation=dict(size=[20, 20], counts=[100, 200]))])
    with pytest.raises(InputError, match='annotation 1: RLE of size'):
        write([dict(crowd, segmentation=dict(size=[10, 20], counts=[200]))], test_mode=True)
    assert len(write([{}, {'segmentation': None}, {'segmentation': ...}])) == 1
    assert len(write([{'segmentation': 'unread'}])) == 1  # of people who have keypoints, nobody reads it
    assert write([{}]).get_data_info(0)['width'] == 20


@pytest.mark.parametrize('kind', ['BottomupCocoDataset', 'mmpose.CocoDataset'])
def test_people_of_no_image_are_counted(write, kind, monkeypatch):
    from icconv_mm.app.adapters.libraries import adapter_of

    adapter, said = adapter_of('mmpose'), []
    monkeypatch.setattr('icconv_mm.datasets.checks.print_log', lambda text, **_: said.append(text))
    adapter.check(None, write([{}, {}], kind=kind), 'd', training=True)
    assert not said
    dataset = write([{}, {'image_id': 7}], kind=kind)
    adapter.check(None, dataset, 'd', training=True)
    assert said == [f'{dataset.ann_file}: mmpose leaves out 1 of the 2 people: of no image of the file']


def test_mmposes_own_dataset_is_looked_at(write):
    from icconv_mm.app.adapters.libraries import adapter_of

    def check(person):
        adapter_of('mmpose').check(None, write([{}, person], kind='mmpose.CocoDataset'), 'd', training=True)

    check({})
    with pytest.raises(InputError, match=r"^d: .*people\.json: image 1 \(1\.jpg\), annotation 2: no 'bbox'"):
        check({'bbox': ...})
    with pytest.raises(InputError, match=r'^d: .*people\.json: .* annotation 2: the first polygon has 2 points'):
        check({'segmentation': [[1, 2, 3, 4]]})


@pytest.mark.parametrize(
    'settings, missing, message',
    [
        ({}, 'keypoints', "no 'keypoints', which"),
        ({}, 'bbox', "no 'bbox', which"),
        ({}, 'area', "no 'area', which .*, or set use_area=False of the metric"),
        (dict(iou_type='keypoints_crowd'), 'num_keypoints', "no 'num_keypoints'"),
        (dict(use_area=False), 'area', None),
    ],
)
def test_what_the_metric_needs(write, tmp_path, settings, missing, message):
    from mmengine.registry import METRICS

    from icconv_mm.app.adapters.libraries import adapter_of

    write([{}, {missing: ...}], kind='mmpose.CocoDataset', test_mode=True)
    metric = METRICS.build(dict(type='mmpose.CocoMetric', ann_file=str(tmp_path / 'people.json'), **settings))
    if message is None:
        return adapter_of('mmpose').check_metric(metric, {}, 'val_evaluator', 'people.json')
    said = rf'^val_evaluator\.ann_file: people\.json: image 1 \(1\.jpg\), annotation 2: {message}'
    with pytest.raises(InputError, match=said):
        adapter_of('mmpose').check_metric(metric, {}, 'val_evaluator', 'people.json')
