"""Time an exported network in a headless Chromium against native ONNX Runtime with as many threads.

Both run the network alone, in turn, on the same random images. Counted is the processor's time, of the browser with all
its processes; ratios are of medians. The browser takes at most as many threads as the machine has cores.

Example:
  python tools/dev/browser_times.py work_dirs/demo/all/network.onnx --sizes 128 512
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from icconv_mm_runtime import Session
from icconv_mm_runtime.extra import web
from icconv_workshop import browser

# Runs the network in a Worker, as the page does.
WORKER = """
const ort = await import(ORIGIN + '/onnxruntime-web.js');
ort.env.wasm.numThreads = THREADS;
ort.env.wasm.wasmPaths = { wasm: ORIGIN + '/onnxruntime-web.wasm' };
const session = await ort.InferenceSession.create(ORIGIN + '/network.onnx', { executionProviders: ['wasm'] });
onmessage = async ({ data: { side, count } }) => {
  const pixels = Uint8Array.from({ length: 3 * side * side }, () => Math.random() * 256);
  const feeds = { image: new ort.Tensor('uint8', pixels, [1, 3, side, side]) };
  if (session.inputNames.includes('size')) feeds.size = new ort.Tensor('float32', [side, side, 1, 1], [1, 4]);
  const begin = performance.now();
  for (let i = 0; i < count; i++) await session.run(feeds);
  postMessage((performance.now() - begin) / count);
};
postMessage('ready');
"""


def browser_time(process: psutil.Process) -> float:
    """Returns the seconds of processor time of a browser and its processes until now."""
    times = [module.cpu_times() for module in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def compare(folder: Path, file: Path, sides: list[int], threads: int, rounds: int, count: int) -> None:
    """Prints a row of the table for each size."""
    session = Session(file, threads)
    rng = np.random.default_rng(0)
    with web.server(folder, isolated=threads > 1) as server, browser.browser() as page:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        origin = f'http://127.0.0.1:{server.server_port}'
        page.open(f'{origin}/network.json')
        if threads > 1 and not page.run('crossOriginIsolated'):
            raise SystemExit('error: the page is not isolated')
        code = WORKER.replace('ORIGIN', repr(origin)).replace('THREADS', str(threads))
        page.run(f'window.code = URL.createObjectURL(new Blob([{code!r}], {{ type: "text/javascript" }}))')
        page.run('window.worker = new Worker(code, { type: "module" })')
        answer = 'new Promise((done) => { worker.onmessage = (event) => done(event.data); })'
        page.run(answer)
        process = psutil.Process(page.process.pid)
        for side in sides:
            size = np.array([[side, side, 1, 1]], np.float32)
            inputs = {'image': rng.integers(0, 256, (1, 3, side, side), np.uint8)}
            inputs |= {'size': size} if session.metadata['batch']['sized'] else {}

            def native(inputs: dict = inputs) -> None:
                for _ in range(count):
                    session.run(inputs)

            def in_browser(side: int = side) -> None:
                page.run(f'worker.postMessage({{ side: {side}, count: {count} }}); {answer}')

            def spent(run: Callable[[], None], clock: Callable[[], float]) -> tuple[float, float]:
                begin = clock(), time.perf_counter()
                run()
                return 1000 * (clock() - begin[0]) / count, 1000 * (time.perf_counter() - begin[1]) / count

            rows = []
            for _ in range(rounds + 1):  # the first is the warm-up
                rows.append((*spent(native, time.process_time), *spent(in_browser, lambda: browser_time(process))))
            own_median, own_wall, theirs, theirs_wall = (statistics.median(column) for column in zip(*rows[1:]))
            print(
                f'| {threads} | {side} x {side} | {own_median:.1f} | {theirs:.1f} | {theirs / own_median:.2f} '
                f'| {own_wall:.1f} | {theirs_wall:.1f} |',
                flush=True,
            )
        server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', type=Path, metavar='FILE.onnx', help='an exported network')
    parser.add_argument('--sizes', type=int, nargs='+', default=[128, 512], metavar='N', help='sides of the images')
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2], metavar='N', help='default: 1 2')
    parser.add_argument('--rounds', type=int, default=7, metavar='N', help='default: %(default)s')
    parser.add_argument('--count', type=int, default=10, metavar='N', help='runs in a round; default: %(default)s')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        web.write_page(args.file, folder)
        print('| threads | image | native, ms of CPU | browser, ms of CPU | ratio | native, ms | browser, ms |')
        print('|---|---|---|---|---|---|---|')
        for threads in args.threads:
            compare(Path(folder), args.file, args.sizes, threads, args.rounds, args.count)


if __name__ == '__main__':
    main()
