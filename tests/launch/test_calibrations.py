"""What logs have taught: kept by many processes at once, and checked when it is read."""

import json
import subprocess
import sys

import pytest
from tests.launch.logs import VLLM_FP8_ONE_CARD

from veche.core.errors import InputError
from veche.launch.calibrations import calibrations, calibrations_file, forget, spans

_RUN = "from veche.cli.main import run; run()"
ENTRY = {
    "machine": "m", "engine": "vllm", "engine_version": "0.28.0", "gpu": "rtx-pro-6000",
    "num_gpus": 1, "position": 0.5, "overhead_bytes": 1 << 30, "digest": "0" * 64,
}  # fmt: skip


def keep(value):
    calibrations_file().parent.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value)
    calibrations_file().write_text(text)


def test_what_twelve_processes_learn_at_once_is_kept_by_all(tmp_path):
    running = []
    for number in range(12):
        log = tmp_path / f"{number}.log"
        log.write_text(VLLM_FP8_ONE_CARD + f"number {number}\n")
        words = ["launch", "qwen3-30b-a3b", "--parse-log", str(log), "--json"]
        program = [sys.executable, "-c", _RUN, *words]
        running.append(subprocess.Popen(program, stdout=subprocess.PIPE))
    answers = [json.loads(process.communicate()[0]) for process in running]
    assert all(answer["has_learned"] for answer in answers)
    kept = calibrations()
    assert {entry["digest"] for entry in kept} == {a["facts"]["digest"] for a in answers}
    assert len(kept) == 12


def test_what_is_well_formed_is_read():
    keep({"schema": 1, "entries": [ENTRY]})
    assert calibrations() == [ENTRY]


@pytest.mark.parametrize(
    "changes",
    [
        {"position": "0.5"}, {"position": None}, {"position": []}, {"position": 1e300},
        {"machine": 3}, {"engine": ["vllm"]}, {"gpu": {}}, {"num_gpus": "1"}, {"num_gpus": 1e400},
        {"overhead_bytes": None}, {"overhead_bytes": -1}, {"digest": 7}, {"strange": 1},
        {"engine_version": 28},
    ],
    ids=str,
)  # fmt: skip
def test_an_odd_entry_is_one_clear_error_and_can_be_forgotten(changes):
    keep({"schema": 1, "entries": [ENTRY, ENTRY | changes]})
    for read in (calibrations, lambda: spans("rtx-pro-6000")):
        with pytest.raises(InputError) as caught:
            read()
        assert str(calibrations_file()) in caught.value.message
    forget()
    assert calibrations() == []


@pytest.mark.parametrize(
    "value",
    [
        [], {}, 3, "", "{", '{"schema": 1, "schema": 1, "entries": []}', {"schema": 2},
        {"schema": 1}, {"schema": 1, "entries": {}},
        {"schema": 1, "entries": [3]}, {"schema": 1, "entries": [{}]},
        '{"schema": 1, "entries": [' + "[" * 500 + "]" * 500 + "]}",
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_another_file_is_one_clear_error(value):
    keep(value)
    with pytest.raises(InputError) as caught:
        calibrations()
    assert caught.value.hint
    forget()
    assert calibrations() == []
