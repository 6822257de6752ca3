"""Both languages say the same."""

import string

import pytest

from veche.launch.phrases import PHRASES
from veche.launch.rules import RULES


@pytest.mark.parametrize("key", PHRASES)
def test_both_languages_have_the_same_placeholders(key):
    names = {
        language: {field for _, field, _, _ in string.Formatter().parse(text) if field}
        for language, text in PHRASES[key].items()
    }
    assert set(names) == {"en", "ru"}
    assert names["en"] == names["ru"]


def test_every_rule_is_explained():
    assert {rule.name for rule in RULES} <= set(PHRASES)
