import subprocess
import sys

from service.demo.memory import Peaks


def test_processes_are_counted_by_kind() -> None:
    waits = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", waits, "assembler.jobs.worker"], stdin=subprocess.PIPE
    ) as process:
        peaks = Peaks()
        peaks.sample()
        assert process.stdin is not None
        process.stdin.close()
    peaks.sample()

    assert peaks.by_kind["worker"].num_processes == 1
    assert peaks.by_kind["command"].rss > peaks.by_kind["worker"].rss > 0
