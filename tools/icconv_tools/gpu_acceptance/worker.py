"""Working through the measurements: in a process of their own, which may crash or hang, and the one that watches it."""

import faulthandler
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from icconv_mm.errors import UserError, sentence
from icconv_tools.gpu_acceptance.bench import Bench, Measurement
from icconv_tools.gpu_acceptance.results import ResultsFile
from icconv_tools.processes import Children, Ended

# exit status of a process that has worked
DONE, FRESH, NO_TIME = 0, 70, 71
GRACE = 30  # seconds beyond the end that a process may take to stop


def work(measurements: Sequence[Measurement], bench: Bench, seconds: float) -> int:
    """Measure what the results do not have, until none is left or the next would not fit the time.

    Returns:
        DONE, NO_TIME, or FRESH after an error that may have broken the device's context: go on in a new process.
    """
    end = time.monotonic() + seconds
    for each in measurements:
        if each.name in bench.results.figures:
            continue
        if time.monotonic() + (0 if bench.dry else each.seconds) > end:
            return NO_TIME
        bench.results.begin(each.name)
        faulthandler.dump_traceback_later(2 * each.seconds + 60 * bench.dry, exit=True, file=sys.__stderr__)
        start = time.monotonic()
        result, is_fault = _run(each, bench)
        faulthandler.cancel_dump_traceback_later()
        result = {**result, 'seconds': round(time.monotonic() - start, 1)}
        bench.results.put(each.name, result)
        print(f'{each.name}: {shown(result)}', flush=True)
        if is_fault:
            return FRESH
    return DONE


def _run(each: Measurement, bench: Bench) -> tuple[dict, bool]:
    if reason := each.missing():
        return {'skipped': reason}, False
    try:
        return each.run(bench), False
    except UserError as error:  # contenders that disagree, say
        return {'failed': sentence(error)}, False
    except Exception as error:
        return {'failed': f'{type(error).__name__}: {sentence(error)}'.splitlines()[0]}, True


def shown(result: dict) -> str:
    """A result on one line."""
    for key in ('failed', 'skipped'):
        if key in result:
            return result[key] if key == 'skipped' else f'FAILED: {result[key]}'
    verdicts = [
        f'{each["contender"]} / {each["baseline"]} {kind} {each["ratios"][kind]:.2f}'
        f' (limit {verdict["limit"]:.2f} {"kept" if verdict["kept"] else "MISSED"})'
        for each in result.get('comparisons', ())
        for kind, verdict in each['limits'].items()
    ]
    return result.get('summary') or ', '.join(verdicts) or 'measured'


def supervise(command: Sequence[str], results: ResultsFile, seconds: float) -> bool:
    """Let processes work until all is measured; note what one of them died of, and go on in the next.

    Args:
        command: Starts a process that calls :func:`work`; the seconds left are appended.
        results: The file into which they write.
        seconds: Until none is started any more.

    Returns:
        Whether all is measured; else the time is over.

    Raises:
        UserError: A process ends before its first measurement.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        ended = _process([*command, f'{left:.0f}'], left + GRACE)
        results.reload()
        if results.running is not None:
            results.put(results.running, {'failed': f'its process {ended}'})
            print(f'{list(results.figures)[-1]}: {shown(list(results.figures.values())[-1])}', flush=True)
        elif ended.status in (DONE, NO_TIME):
            return ended.status == DONE
        elif ended.status != FRESH:
            raise UserError(f'the measuring process {ended}')
    return False


def _process(command: Sequence[str], seconds: float) -> Ended:
    """How a process ended; shows what it has said on stderr if it has not worked."""
    with Children() as children, tempfile.TemporaryDirectory() as folder:
        ended = children.run(command, log := Path(folder, 'stderr.log'), seconds, stdout=None)
        said = log.read_text(errors='replace')
    if ended.status not in (DONE, FRESH, NO_TIME):
        sys.stderr.write(said)
    # of the watchdog in the process, which dumps what it was doing
    return ended._replace(status=None) if 'Timeout (' in said else ended
