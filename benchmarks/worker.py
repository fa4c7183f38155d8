"""Processes that benchmarks hold ready, so that what they compare runs by turns on a machine with other work."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any


class Worker:
    """One of the things compared, in a process of its own: it says how its set-up went, then answers orders.

    Its side is the script called with ``--worker NAME``: it writes lines of JSON, first of its set-up, then one for
    each line of JSON that it reads, and a last one when it reads an empty line.

    Args:
        script: of the benchmark.
        name: what it is to run.
        python: the interpreter.
        threads: for OpenMP, MKL and numba.
    """

    def __init__(self, script: str, name: str, python: str, threads: int) -> None:
        counts = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "NUMBA")}
        self._process = subprocess.Popen(
            [python, str(Path(script).resolve()), "--worker", name],
            env=os.environ | counts,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.facts = self._answer()

    def run(self, *order: Any) -> float:
        """Its answer to an order."""
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return float(self._answer())

    def stop(self) -> float:
        """Ends the process; its last answer."""
        return float(self._process.communicate("\n")[0])

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(self._process.communicate()[1])
        return json.loads(line)


def interpreter(needs: str, pythons: list[str]) -> str | None:
    """The first interpreter that can import a module."""
    package = needs.partition(".")[0]
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return next((python for python in pythons if subprocess.run([python, "-c", code]).returncode == 0), None)
