"""Fuzz the readers by what of their code a file reaches, with atheris: python tests/fuzz_by_coverage.py --minutes 10

Atheris (pip install atheris; in no requirements file, as it has wheels for few systems) keeps each changed file that
reaches a new branch of the readers, and changes it further. Readers, good files and what may leave a reader are those
of fuzz_readers.py, where hypothesis changes good files without looking at the code.
"""

import argparse
import importlib
import io
import re
import subprocess
import sys
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages, wherever it is started

SLOWEST = 5  # seconds that a file may take; atheris makes them 4 kB at most
LARGEST = 4096  # bytes


def fuzz_one(name: str, folder: Path, seconds: int) -> None:
    """Change files of one reader for `seconds`, in this process, which ends with it."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["calibration", "yaml"]), redirect_stderr(io.StringIO()):
        from fuzz_readers import PIECES, readers

        from calibration.common.command_line import UserError
    file, good, read = readers()[name]
    path, corpus, words = folder / file, folder / "corpus", folder / "words"
    corpus.mkdir()
    (corpus / "good").write_bytes(good)
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in piece) + '"\n' for piece in PIECES if piece))
    counted = {"refused": 0, "read": 0}

    def one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                read(path)
        except UserError as error:
            counted["refused"] += 1
            assert str(error).strip()
        else:
            counted["read"] += 1
        (folder / "counted").write_text(f"{counted['refused'] + counted['read']} | {counted['refused']} | "
                                        f"{counted['read']}")  # fmt: skip

    options = (f"-max_total_time={seconds}", f"-timeout={SLOWEST}", f"-max_len={max(LARGEST, 2 * len(good))}",
               "-rss_limit_mb=4000", f"-dict={words}", f"-artifact_prefix={folder}/fault_")  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    """A process for each reader, as atheris ends its own; print a row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="for each reader")
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)  # the folder of a process of one reader
    arguments = parser.parse_args()
    if arguments.here:
        fuzz_one(arguments.only[0], arguments.here, round(60 * arguments.minutes))
    from fuzz_readers import readers  # not before: what is imported is no longer instrumented

    faults = 0
    print("| reader | files | refused | read | branches | faults |\n|---|---|---|---|---|---|", flush=True)
    for name in arguments.only or readers():
        with tempfile.TemporaryDirectory() as folder:
            again = [sys.executable, __file__, "--only", name, "--minutes", str(arguments.minutes), "--here", folder]
            done = subprocess.run(again, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said = done.stdout.decode(errors="replace")
            reached = (re.findall(r"cov: (\d+)", said) or ["?"])[-1]
            fault = ""
            if done.returncode:
                culprit = next(Path(folder).glob("fault_*"), None)
                raised = re.findall(r"=== Uncaught Python exception: ===\n(.*?)\n==", said, re.DOTALL) or [said[-1500:]]
                fault = f"{raised[0]}\n{culprit.read_bytes() if culprit else b''!r}"
            counted = Path(folder, "counted")
            rows = counted.read_text() if counted.is_file() else "0 | 0 | 0"
        faults += bool(fault)
        print(f"| {name} | {rows} | {reached} | {'FAULT' if fault else 0} |\n{fault}".rstrip(), flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
