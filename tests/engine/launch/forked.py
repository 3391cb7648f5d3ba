"""A module that tests run by `python -m`: `forked SCENARIO ARGUMENTS...`."""

import json
import os
import signal
import subprocess
import sys
import time


def main(scenario: str, *arguments: str) -> int:
    if scenario == "say":
        said: dict[str, object] = {"env": dict(os.environ), "name": __name__}
        said |= {"input": sys.stdin.read(), "session": os.getsid(0), "modules": [*sys.modules]}
        said["arguments"] = arguments
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        sys.stderr.write("err\n")
        return 3
    if scenario == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if scenario == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    sys.stdout.write(f"{os.getpid()} {child.pid}\n")
    sys.stdout.flush()
    time.sleep(1000)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
