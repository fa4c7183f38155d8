"""Processes that benchmarks hold ready, so that what they compare runs by turns on a machine with other work."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Collection
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


def arguments(doc: str | None, known: Collection[str], always: str, rounds: int) -> argparse.ArgumentParser:
    """A parser of what all such benchmarks take; see `chosen`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}; all by default, and always {always}")
    parser.add_argument("--python", action="append", default=[], help="an interpreter that has other libraries")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="count processor time instead of the clock's")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def chosen(
    parser: argparse.ArgumentParser, args: argparse.Namespace, known: Collection[str], always: str
) -> tuple[list[str], list[str]]:
    """What is compared, in the order of `known`, and the interpreters to look for it in."""
    unknown = set(args.names) - set(known)
    if unknown:
        parser.error(f"nothing is called {', '.join(sorted(unknown))}.")
    names = [name for name in known if name == always or not args.names or name in args.names]
    return names, [sys.executable, *args.python]


def interpreter(needs: str, pythons: list[str]) -> str | None:
    """The first interpreter that can import a module."""
    package = needs.partition(".")[0]
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return next((python for python in pythons if subprocess.run([python, "-c", code]).returncode == 0), None)
