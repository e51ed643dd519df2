"""train.py several times in the same processes: `two_trainings.py FLAGS -- FLAGS`. Starting torchrun is slow."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train

if __name__ == "__main__":
    calls, given = [[]], sys.argv[1:]
    for flag in given:
        if flag == "--":
            calls.append([])
        else:
            calls[-1].append(flag)
    start, stop = train.distributed.init_process_group, train.distributed.destroy_process_group
    for i, flags in enumerate(calls):  # one process group for all: it cannot be joined twice
        train.distributed.init_process_group = start if i == 0 else lambda backend: None
        train.distributed.destroy_process_group = stop if i == len(calls) - 1 else lambda: None
        sys.argv = ["train.py", *flags]
        train.main()
