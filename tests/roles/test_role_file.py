from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import RoleError
from veche.roles.role import Artefact, Role, RoleSampling, RoleSteering
from veche.roles.role_file import as_dict, is_name, parse_role, read_role, role_text

HASH = "0123456789abcdef" * 4
GOOD = "name: strict\nkind: drafter\ntitle: {en: Strict, ru: Строгий}\n"
WHOLE = Role(
    name="whole",
    kind="observer",
    title={"en": "Whole", "ru": "Целая"},
    prompt={"en": "Look: # twice.\nThen speak.", "ru": "Смотри «дважды».\nПотом говори."},
    sampling=RoleSampling(temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, repetition_penalty=1.1),
    invocation="Observer:",
    num_experts_per_tok=8,
    adapter=Artefact(kind="adapter", content_hash=HASH, base_hash="f" * 64, license="MIT"),
    steering=RoleSteering(
        artefact=Artefact(kind="steering", content_hash="a" * 64), strength=-2.5, layers=(1, 2)
    ),
    probe=Artefact(kind="probe", content_hash="b" * 64),
    license="CC-BY-4.0",
    parents=("c" * 64, "d" * 64),
)


def test_a_role_with_everything_comes_back_as_it_was():
    assert parse_role(role_text(WHOLE), where="r") == WHOLE
    left_at_default = [
        item.name for item in fields(Role) if getattr(WHOLE, item.name) == item.default
    ]
    assert left_at_default == []


def test_a_file_is_read_and_a_missing_one_is_an_error(tmp_path):
    (tmp_path / "r.yaml").write_text(role_text(WHOLE), encoding="utf-8")
    assert read_role(tmp_path / "r.yaml") == WHOLE
    with pytest.raises(RoleError, match="cannot be read"):
        read_role(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RoleError, match="not UTF-8"):
        read_role(tmp_path / "bad.yaml")


@given(
    prompt=st.text(
        st.characters(blacklist_categories=("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")),
        max_size=60,
    ),
    temperature=st.floats(0, 100),
)
def test_any_prompt_and_temperature_come_back(prompt, temperature):
    role = Role(
        name="r",
        kind="drafter",
        title={"en": "T", "ru": "Т"},
        prompt={"en": prompt, "ru": "иначе"},
        sampling=RoleSampling(temperature=temperature),
    )
    assert parse_role(role_text(role), where="r") == role


def test_one_text_is_for_both_languages_and_a_missing_one_is_as_the_other():
    for prompt in ("prompt: Думай.\n", "prompt: {ru: Думай.}\n"):
        role = parse_role(GOOD + prompt, where="r")
        assert role.prompt == {"en": "Думай.", "ru": "Думай."}
    assert parse_role(GOOD, where="r").prompt == {"en": "", "ru": ""}


def test_the_json_form_has_both_languages_and_every_key():
    told = as_dict(parse_role(GOOD, where="r"))
    assert set(told) == {item.name for item in fields(Role)}
    assert told["prompt"] == {"en": "", "ru": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("drafter", "clown"), r"kind: 'clown' is none of drafter, objector"),
        (GOOD + "promt: x\n", r"unknown key 'promt' \(did you mean 'prompt'\?\)"),
        (
            GOOD + "sampling: {temperatur: 1}\n",
            r"unknown key 'sampling.temperatur' \(did you mean 'temperature'\?\)",
        ),
        (GOOD + "steering: {content_hash: x}\n", r"steering.content_hash: is no SHA-256"),
        (GOOD + f"adapter: {{content_hash: {HASH}, strength: 1}}\n", r"unknown key"),
        (GOOD.replace("strict", "../x"), "name: must be lower-case letters"),
        (GOOD.replace("strict", "Strict"), "name: must be lower-case letters"),
        ("kind: drafter\ntitle: T\n", "the key 'name' is missing"),
        (GOOD + "name: twice\n", "stands twice"),
        (GOOD + "sampling: {temperature: -1}\n", "sampling.temperature"),
        (GOOD + "sampling: {temperature: .nan}\n", "sampling.temperature"),
        (GOOD + "sampling: {top_p: 0}\n", "sampling.top_p"),
        (GOOD + "num_experts_per_tok: 0\n", "num_experts_per_tok"),
        (GOOD + "prompt: {en: x, de: y}\n", "prompt"),
        (GOOD + 'prompt: "a\\e[31m"\n', "control characters"),
        (GOOD + "license: [x]\n", "license"),
        (GOOD + "license: '; rm -rf'\n", "no SPDX identifier"),
        ("name: a\nkind: drafter\ntitle: ' '\n", "title: it is empty"),
        ("[]", "is not a mapping"),
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
        ("x: " + "y" * 40_000, "too large"),
    ],
)
def test_what_is_wrong_is_said(text, message):
    with pytest.raises(RoleError, match=message):
        parse_role(text, where="role x")


@given(st.text(max_size=80))
def test_a_name_is_a_plain_folder_name(name):
    if is_name(name):
        assert name.isascii()
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert name[0] != "-"
        assert len(name) <= 64
