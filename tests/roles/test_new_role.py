import pytest
from tests import tiny_models
from tests.roles.adapters import a_steering

from veche.checkpoint.identity import content_hash
from veche.core.errors import RoleError
from veche.roles.new_role import RoleWish, new_role
from veche.roles.registry import Registry
from veche.roles.role_file import version_hash


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "roles")


def test_a_prompt_is_enough(registry):
    role, version = new_role(registry, "strict-one", RoleWish(prompt="Be strict."))
    assert registry.get("strict-one") == role
    assert (role.kind, role.title["en"], version.number) == ("drafter", "Strict one", 1)
    assert role.prompt == {"en": "Be strict.", "ru": "Be strict."}


def test_what_is_not_said_is_the_parents_and_the_lineage_names_it(registry):
    parent = registry.get("proposer")
    role, _ = new_role(registry, "calm", RoleWish(temperature=0.1), parent="proposer")
    assert (role.prompt, role.kind) == (parent.prompt, parent.kind)
    assert role.sampling.temperature == 0.1
    assert role.parents == (version_hash(parent),)


def test_a_new_version_needs_itself_as_parent(registry):
    new_role(registry, "strict", RoleWish(prompt="A."))
    with pytest.raises(RoleError, match="there is a role 'strict' already"):
        new_role(registry, "strict", RoleWish(prompt="B."))
    _, version = new_role(registry, "strict", RoleWish(prompt="B."), parent="strict")
    assert version.number == 2


def test_a_steering_is_kept_with_the_model_that_it_was_found_with(registry, tmp_path):
    model = tiny_models.tiny_qwen3_moe(tmp_path / "m")
    file = a_steering(tmp_path / "s.safetensors", model)
    wish = RoleWish(prompt="P.", steering=file, strength=2.5)
    role, _ = new_role(registry, "steered", wish)
    assert role.steering.strength == 2.5
    assert role.steering.artefact.base_hash == content_hash(model)
    file.unlink()
    assert (registry.folder(role.steering.artefact) / "steering.safetensors").is_file()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (RoleWish(), "nothing says what role"),
        (RoleWish(prompt="P", strength=2.0), "nothing to steer with"),
        (RoleWish(prompt="P", license="; rm"), "no SPDX identifier"),
        (RoleWish(prompt="P", temperature=float("nan")), "sampling.temperature"),
        (RoleWish(prompt="P\x1b[2J"), "control characters"),
        (RoleWish(prompt="P", title=" "), "title: it is empty"),
    ],
)
def test_what_makes_no_role_is_refused_and_nothing_is_kept(registry, wish, message):
    with pytest.raises(RoleError, match=message):
        new_role(registry, "strict", wish)
    assert "strict" not in registry.names()
