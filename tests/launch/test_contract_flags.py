"""Every flag that veche emits is one of the engine's, by the lists of flags stored in data."""

import pytest
from tests.launch.emitted import argument_lists, value
from tests.launch.engine_parsers import stored

CASES = [(engine, version) for engine, versions in stored().items() for version in versions]


@pytest.mark.parametrize(("engine", "version"), CASES)
def test_every_flag_is_the_engines_own(engine, version):
    entry = stored()[engine][version]
    known, choices = set(entry["flags"].split()), entry["choices"]
    for words in argument_lists(engine, version.removeprefix("b")):
        flags = {word for word in words if word.startswith("--")}
        assert flags <= known
        for flag in flags & set(choices):
            assert value(words, flag) in choices[flag].split()


def test_lists_of_flags_name_their_source():
    assert all(entry["source"] for versions in stored().values() for entry in versions.values())
