import pytest

from veche.core.errors import InputError, RoleError
from veche.council.seats import default_council, seated
from veche.roles.new_role import RoleWish, new_role
from veche.roles.registry import Registry


@pytest.fixture
def registry():
    registry = Registry()
    for name, kind in (("critic", "objector"), ("judge", "objector"), ("poet", "drafter")):
        new_role(registry, name, RoleWish(prompt="P.", kind=kind))
    return registry


def names(roles):
    return [role.name for role in roles]


def test_without_guests_the_council_is_the_default_one(registry):
    assert seated(registry, ()) == default_council(registry)


def test_a_drafter_joins_and_an_objector_takes_the_seat(registry):
    assert names(seated(registry, ["poet", "critic"])) == [
        "proposer", "logician", "critic", "synthesiser", "recursia", "poet",
    ]  # fmt: skip


def test_a_role_of_the_council_named_again_sits_once(registry):
    assert seated(registry, ["logician", "logician"]) == default_council(registry)


def test_a_version_in_use_is_the_one_that_sits(registry):
    new_role(registry, "logician", RoleWish(prompt="Think."), parent="logician")
    assert default_council(registry)[1].prompt["en"] == "Think."


def test_two_for_one_seat_a_reader_and_a_stranger_are_refused(registry):
    with pytest.raises(InputError, match="critic and judge are both objectors"):
        seated(registry, ["critic", "judge"])
    with pytest.raises(InputError, match="has not learnt what can be asked"):
        seated(registry, ["q-intent"])
    with pytest.raises(RoleError, match="no role 'poat'"):
        seated(registry, ["poat"])
