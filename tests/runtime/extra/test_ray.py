"""Predictions by Ray Data are those of a session, and survive broken images and machines."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from described import random_image
from small_network import write_network

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('pyarrow')
pytest.importorskip('ray')

import pyarrow as pa
import pyarrow.dataset as ds
import ray

from icconv_mm_runtime import RuntimeInputError, Session
from icconv_mm_runtime.coco import encode_rle
from icconv_mm_runtime.ray import ROW_SCHEMA, predict

pytestmark = pytest.mark.slow
REPO = Path(__file__).resolve().parents[3]
WORKERS = {'env_vars': {'PYTHONPATH': str(REPO)}}


@pytest.fixture
def local():
    ray.init(address='local', num_cpus=2, include_dashboard=False, runtime_env=WORKERS)
    yield
    ray.shutdown()


@pytest.fixture
def network(tmp_path):
    return write_network(tmp_path / 'network.onnx')


@pytest.fixture
def images(tmp_path):
    """A folder of images in two sizes, one below it, and three that cannot be read."""
    folder = tmp_path / 'images'
    (folder / 'below').mkdir(parents=True)
    for number in range(70):
        cv2.imwrite(str(folder / f'{number:02d}.png'), random_image(24 + 8 * (number % 2), 32, number) // (number + 1))
    cv2.imwrite(str(folder / 'below' / 'a b%20.JPG'), random_image(20, 30))
    (folder / 'broken.png').write_bytes((folder / '00.png').read_bytes()[:40])
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'other.jpg').write_bytes(b'GIF89a')
    return folder


def rows_of(dataset):
    return {(row['path'], row['task']): row for row in dataset.take_all()}


def test_rows_are_what_a_session_predicts(local, images, network, tmp_path):
    paths = sorted(path for path in images.rglob('*') if path.is_file())
    dataset = predict(str(images), network, batch_size=4, concurrency=2)
    dataset.write_parquet(str(tmp_path / 'found'))
    table = ds.dataset(tmp_path / 'found').to_table()
    assert table.schema.equals(ROW_SCHEMA)
    rows = {(row['path'], row['task']): row for row in table.to_pylist()}
    assert len(rows) == len(table) == 71 * 5 + 3
    for path, prediction in Session(network, threads=1).try_predict(paths, batch_size=4):
        if isinstance(prediction, RuntimeInputError):
            row = rows.pop((path, None))
            assert row.pop('error') == str(prediction) and set(row.values()) == {path, None}
            continue
        for task, result in prediction.tasks.items():
            row = rows.pop((path, task))
            assert (row['height'], row['width']) == prediction.image.shape[:2] and row['error'] is None
            compare(row, result)
    assert not rows


def compare(row, result):
    """Asserts that a row has the predictions of a task, and nothing else."""
    if 'seg_map' in result:
        labels = np.unique(result['seg_map']).tolist()
        assert row['labels'] == labels
        assert row['masks'] == [encode_rle(result['seg_map'] == label) for label in labels]
        assert row['boxes'] is row['scores'] is row['keypoints'] is None
        return
    np.testing.assert_array_equal(np.float32(row['scores']), result['scores'])
    has_boxes, has_masks, has_keypoints = (name in result for name in ('boxes', 'masks', 'keypoints'))
    assert (row['boxes'] is None, row['masks'] is None) == (not has_boxes, not has_masks)
    assert (row['keypoints'] is None, row['labels'] is None) == (not has_keypoints, has_keypoints)
    if has_boxes:
        boxes = [[box[side] for side in ('x1', 'y1', 'x2', 'y2')] for box in row['boxes']]
        np.testing.assert_array_equal(np.float32(boxes), result['boxes'])
        assert row['labels'] == result['labels'].tolist()
    if has_masks:
        assert row['masks'] == [encode_rle(mask) for mask in result['masks']]
    if has_keypoints:
        points = np.float32([[(p['x'], p['y'], p['score']) for p in person] for person in row['keypoints']])
        np.testing.assert_array_equal(points[..., :2], result['keypoints'].astype(np.float32))
        np.testing.assert_array_equal(points[..., 2], result['keypoint_scores'])


def test_every_reader_reads_the_folder(local, images, network, tmp_path):
    duckdb, pandas, polars = (pytest.importorskip(name) for name in ('duckdb', 'pandas', 'polars'))
    for number in range(70):  # blocks whose columns are all null
        (images / f'z{number}.jpg').write_bytes(b'')
    predict(images, network).write_parquet(str(tmp_path / 'found'))
    files = list((tmp_path / 'found').glob('*.parquet'))
    assert len(files) == 3
    read = pandas.read_parquet(tmp_path / 'found'), polars.read_parquet(tmp_path / 'found/*.parquet')
    assert [len(rows) for rows in read] == [71 * 5 + 73] * 2
    query = 'select count(*), count(error), count(distinct path), sum(len(boxes)), max(boxes[1].x2) from '
    ((count, errors, paths, boxes, most),) = duckdb.sql(f"{query}'{tmp_path}/found/*.parquet'").fetchall()
    assert (count, errors, paths, boxes) == (71 * 5 + 73, 73, 71 + 73, 71 * 2 * 3)
    assert most == max(row[0]['x2'] for row in read[1]['boxes'].drop_nulls().to_list())


def test_a_dataset_of_bytes(local, images, network):
    """Its reading tasks run beside workers that would fill the machine."""
    listed = ray.data.read_binary_files(str(images), include_paths=True)
    assert rows_of(predict(listed, network, concurrency=2)) == rows_of(predict(images, network, concurrency=2))


def test_a_dataset_of_paths(local, images, network):
    paths = ray.data.from_items([{'path': str(images / name)} for name in ('00.png', 'absent.png', 'broken.png')])
    rows = rows_of(predict(paths, network))
    assert len(rows) == 5 + 2
    assert 'absent.png' in rows[str(images / 'absent.png'), None]['error']


@pytest.mark.parametrize('has_bytes', [False, True])
def test_a_row_without_a_path_has_an_error_and_the_others_are_done(has_bytes, local, images, network):
    path = str(images / '00.png')
    columns = {'path': pa.array([None, path, None], pa.string())}
    if has_bytes:
        columns['bytes'] = pa.array([Path(path).read_bytes()] * 3, pa.binary())
    rows = predict(ray.data.from_arrow(pa.table(columns)), network).take_all()
    errors = [row['error'] for row in rows if row['path'] is None]
    assert errors == ['path: expected the name of an image, got None'] * 2
    assert len([row for row in rows if row['path'] == path and row['error'] is None]) == 5


def test_arguments_that_cannot_be_used(images, network, tmp_path):
    """Nothing is started for them."""
    with pytest.raises(RuntimeInputError, match=r'absent\.onnx: no such file'):
        predict(images, tmp_path / 'absent.onnx')
    with pytest.raises(RuntimeInputError, match='absent: no such file or folder'):
        predict(tmp_path / 'absent', network)
    (tmp_path / 'bare').mkdir()
    with pytest.raises(RuntimeInputError, match=r'bare: no image \(.jpg, '):
        predict(tmp_path / 'bare', network)
    for name, value in {
        'batch_size': 0,
        'num_cpus': 0.5,
        'concurrency': 0,
        'concurrency must be a whole number from 1 to 2': (3, 2),
    }.items():
        with pytest.raises(RuntimeInputError, match=f'{name}.*, got '):
            predict(images, network, **{name.split()[0]: value})
    assert not ray.is_initialized()


def test_a_dataset_of_something_else(local, network):
    with pytest.raises(Exception, match='images: the dataset has no column path, only name, size'):
        predict(ray.data.from_items([{'name': 'a.png', 'size': 3}]), network).take_all()


def test_a_device_that_workers_do_not_have(local, images, network):
    with pytest.raises(Exception, match="there is no device 'tpu'"):
        predict(images, network, device='tpu').take_all()


def test_a_machine_is_lost(tmp_path):
    """Every image is there once, with its prediction."""
    from ray.cluster_utils import Cluster

    (tmp_path / 'images').mkdir()
    for number in range(640):
        cv2.imwrite(str(tmp_path / 'images' / f'{number:03d}.bmp'), random_image(120, 160, number))
    network = write_network(tmp_path / 'network.onnx', 'map')
    node = {'num_cpus': 1, 'include_dashboard': False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    lost, at = cluster.add_node(num_cpus=1), []

    def kill():
        while not at:
            time.sleep(0.05)
            written = len(list((tmp_path / 'found').glob('*.parquet'))) if (tmp_path / 'found').is_dir() else 0
            if written and not ray.available_resources().get('CPU'):  # workers on both
                cluster.remove_node(lost, allow_graceful=False)
                at.append(written)

    try:
        ray.init(address=cluster.address, runtime_env=WORKERS)
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        predict(tmp_path / 'images', network, concurrency=2).write_parquet(str(tmp_path / 'found'))
        killer.join(10)
        assert at and at[0] < 10, at
        assert len([machine for machine in ray.nodes() if machine['Alive']]) == 1
    finally:
        at.append(None)
        ray.shutdown()
        cluster.shutdown()
    table = ds.dataset(tmp_path / 'found').to_table()
    assert sorted(map(os.path.basename, table['path'].to_pylist())) == [f'{number:03d}.bmp' for number in range(640)]
    assert table['error'].null_count == 640 and table['masks'].null_count == 0


def test_the_example_of_the_page(tmp_path, images):
    (code,) = re.findall(
        r'^```python\n([^`]*icconv_mm_runtime\.ray.*?)^```', (REPO / 'docs/scale.md').read_text(), re.M | re.S
    )
    write_network(tmp_path / 'network.onnx')
    env = {**os.environ, 'PYTHONPATH': str(REPO), 'RAY_ADDRESS': 'local'}
    subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, check=True, timeout=300)
    assert len(ds.dataset(tmp_path / 'found').to_table()) == 71 * 5 + 3
