"""Run the benchmarks, print the table and write it: `python -m benchmarks [NAME ...] [--output DIR]`.

Measure on a machine that does nothing else; where that cannot be had, `--threads 1 --clock cpu` counts the seconds that
this process had a core. `--tiny` shows in seconds that everything runs; its ratios mean nothing.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import covariance, device, held, keys, ledger, memory, report, solves, targets, training
from benchmarks.setting import FULL, TINY
from benchmarks.timing import Row

BENCHMARKS = {
    "targets": targets.measure,
    "keys": keys.measure,
    "covariance": covariance.measure,
    "ledger": ledger.measure,
    "solves": solves.measure,
    "held": held.measure,
    "memory": memory.measure,
    "training": training.measure,
    "device": device.measure,
}
ON_REQUEST = ("device",)  # of a size for a GPU
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure what was asked for.

    Args:
        arguments: The command line; that of the process where None.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    which = f"which to run: {', '.join(BENCHMARKS)}; all but {', '.join(ON_REQUEST)} if none"
    parser.add_argument("names", nargs="*", metavar="NAME", help=which)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder of results.json and .md")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what seconds are")
    parser.add_argument("--model", choices=("gpt2", "llama"), help="targets and keys: only this one of their models")
    parser.add_argument("--device", default="cpu", help="where the benchmark `device` runs: cpu (with --tiny) or cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: does everything run?")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; expected one of {', '.join(BENCHMARKS)}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(options.threads)
    if options.clock == "cpu" and options.threads != 1:
        parser.error("--clock cpu adds up the seconds of all threads, waiting ones too; use it with --threads 1")
    if "device" in options.names and options.device == "cpu" and not options.tiny:
        parser.error("the benchmark device has a model of 8B parameters; use --device cuda, or --tiny on the CPU")
    sizes = replace(TINY if options.tiny else FULL, device=options.device)
    if options.model is not None:
        sizes = replace(sizes, shapes=tuple(shape for shape in sizes.shapes if shape.family == options.model))
        if not sizes.shapes:
            parser.error(f"no model {options.model} among those of this size")
    switches = [
        *options.names,
        f"--threads={options.threads}",
        f"--clock={options.clock}",
        *([f"--model={options.model}"] if options.model else []),
        *([f"--device={options.device}"] if options.device != "cpu" else []),
        *(["--tiny"] if options.tiny else []),
    ]
    command = " ".join(["python -m benchmarks", *switches])
    rows: list[Row] = []
    for name in options.names or [name for name in BENCHMARKS if name not in ON_REQUEST]:
        found = BENCHMARKS[name](sizes, CLOCKS[options.clock])
        report.show(found)
        rows += found
        paths = report.write(rows, options.output, command)  # each time: the next one takes a while
    print("written:", *paths)
    return rows


if __name__ == "__main__":
    main()
