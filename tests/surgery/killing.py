"""Kill builds with SIGKILL and resume them. Run as a program: it prints what it saw, as JSON.

A build is killed before each of its operations on files (Python's audit events), and by a clock in
the middle of its writing; every time `resume` must lead to the bytes of a build that nobody killed.
Children are forked here, without torch in memory, so that hundreds of builds take seconds.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from veche.planning.plan import read_plan
from veche.surgery.build import build

FILE_EVENTS = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock",
}  # fmt: skip
HIDDEN = {".veche_journal.json", ".veche_lock"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def forked(work):
    """Run `work` in a child; return how it ended (0, or minus the signal) and what it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    return child, reader


def ended(child, reader):
    said = b"".join(iter(lambda: os.read(reader, 65536), b""))
    os.close(reader)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(said) if said else None


def counted(work, last=None):
    """Return work that counts its file events, and kills itself before event number `last`."""

    def counting():
        seen = 0

        def watch(event, arguments):
            nonlocal seen
            if event not in FILE_EVENTS or (event == "open" and not arguments[2] & WRITING):
                return
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        work()
        return seen

    return counting


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def main(source, plan_file, scratch, num_timed):
    plan = read_plan(plan_file)
    reference = scratch / "whole"
    started = time.perf_counter()
    build(plan, source, reference)
    seconds = time.perf_counter() - started
    expected = contents(reference)
    target = scratch / "out"

    def work():
        build(plan, source, target, resume=True, num_workers=2)

    def check(what):
        code, _ = ended(*forked(work))
        assert code == 0, f"{what}: the resumed build ended with {code}"
        made = contents(target)
        other = [name for name in made.keys() | expected if made.get(name) != expected.get(name)]
        assert not other, f"{what}: other bytes in {other}"
        assert {file.name for file in scratch.iterdir()} == {"whole", "out"}, what
        shutil.rmtree(target)

    _, num_events = ended(*forked(counted(work)))
    shutil.rmtree(target)
    for number in range(1, num_events + 1):
        code, _ = ended(*forked(counted(work, number)))
        assert code in (-signal.SIGKILL, 0)
        assert not target.exists() or (target / "config.json").is_file(), number
        half = scratch / "out.partial"
        if (half / "config.json").exists():
            assert contents(half).keys() - expected.keys() <= HIDDEN, number
        check(f"killed before file event {number}")

    generator, num_kills, num_chains = random.Random(0), 0, 0  # noqa: S311 - a test's own dice
    while num_kills < num_timed:
        child, reader = forked(work)
        time.sleep(generator.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        code, _ = ended(child, reader)
        num_kills += code == -signal.SIGKILL
        if generator.random() < 0.5:
            check(f"killed by the clock, kill {num_kills}")
            num_chains += 1
    if target.exists() or (scratch / "out.partial").exists():
        check("killed by the clock, last")
    return {"events": num_events, "timed": num_kills, "chains": num_chains, "seconds": seconds}


if __name__ == "__main__":
    source, plan_file, scratch = map(Path, sys.argv[1:4])
    sys.stdout.write(json.dumps(main(source, plan_file, scratch, int(sys.argv[4]))))
