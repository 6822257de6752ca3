"""Where a training lies until it is whole."""

import resource

import pytest

from veche.core.errors import DiskError, OutputError
from veche.roles.training.workplace import Workplace

RUN = {"settings": {"rank": 4}}


def test_where_nothing_was_written_yet_a_training_begins(tmp_path):
    place = Workplace(tmp_path / "out")
    place.checkpoints.mkdir(parents=True)  # all that a kill in the first moment leaves
    (place.folder / ".run.json.0123456789abcdef.partial").write_text("{")
    place.open(RUN, resume=False)
    with pytest.raises(OutputError, match="unfinished training"):
        place.open(RUN, resume=False)
    place.open(RUN, resume=True)


def test_a_training_that_the_disk_refuses_at_once_leaves_nothing(tmp_path):
    place = Workplace(tmp_path / "out")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(DiskError, match=r"run\.json"):
            place.open(RUN, resume=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not any(tmp_path.iterdir())
    place.open(RUN, resume=False)


def test_files_of_others_are_never_taken_over(tmp_path):
    place = Workplace(tmp_path / "out")
    place.folder.mkdir()
    (place.folder / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="unfinished training"):
        place.open(RUN, resume=False)
