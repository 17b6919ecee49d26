"""The HTTP server of docs/export.md answers with the predictions of a session."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from described import random_image
from small_network import write_network

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('starlette')
pytest.importorskip('uvicorn')

from icconv_mm_runtime import Session
from icconv_mm_runtime.coco import coco_records

pytestmark = pytest.mark.slow
REPO = Path(__file__).resolve().parents[2]


def post(port, content):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    connection.request('POST', '/predict', content)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.fixture
def port(tmp_path):
    write_network(tmp_path / 'model.onnx')
    page = (REPO / 'docs/export.md').read_text()
    (code,) = (block for block in re.findall(r'^```python\n(.*?)^```', page, re.M | re.S) if 'starlette' in block)
    (tmp_path / 'server.py').write_text(code)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        number = free.getsockname()[1]
    command = [sys.executable, '-m', 'uvicorn', 'server:app', '--port', str(number)]
    server = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': f'{REPO}:{tmp_path}'})
    try:
        for _ in range(300):
            try:
                socket.create_connection(('127.0.0.1', number), 1).close()
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.1)
        yield number
    finally:
        server.terminate()
        server.wait(10)


def test_the_server_of_the_page(port, tmp_path):
    content = cv2.imencode('.png', random_image(40, 60))[1].tobytes()
    session = Session(tmp_path / 'model.onnx')
    (prediction,) = session.predict([('upload', content)])
    expected = {name: coco_records(session.tasks[name], result, 1, 0.3) for name, result in prediction.tasks.items()}
    assert len(expected['boxes']) == 3 and len(expected) == 5
    assert post(port, content) == (200, json.loads(json.dumps(expected)))
    assert post(port, content[:50]) == (400, {'error': 'upload: is no image, or is damaged'})
    assert post(port, b'') == (400, {'error': 'upload: is no image, or is damaged'})
    assert post(port, content)[0] == 200
