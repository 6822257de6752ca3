"""Roles and adapters to and from the wider world: what comes back is what went out."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from tests import tiny_models
from tests.roles.adapters import a_steering, an_adapter

from veche.checkpoint.identity import content_hash
from veche.core.errors import CheckpointError, InputError, OutputError, RoleError, UnsupportedError
from veche.engines.protocol import Sampling
from veche.engines.transformers import create
from veche.roles.hot_swap import HotSwap
from veche.roles.registry import Registry
from veche.roles.role import RoleSteering
from veche.roles.role_export import export_role
from veche.roles.role_file import parse_role, version_hash
from veche.roles.role_import import ImportWish, import_role
from veche.roles.speaker import instruction_for


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.tiny_qwen3_moe(tmp_path_factory.mktemp("exchange") / "m")


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    return an_adapter(tmp_path_factory.mktemp("adapter") / "strict", model)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "roles")


@pytest.fixture
def other(tmp_path):
    """The registry of another machine."""
    return Registry(tmp_path / "elsewhere")


def text_ids(model):
    return create(model, dtype="float32")._format.text_ids


def a_whole_role(registry, model, adapter, tmp_path):
    """A role with everything."""
    probe = tmp_path / "probe"
    probe.mkdir()
    save_file({"weight": np.ones(3, np.float32)}, probe / "p.safetensors")
    (probe / "p.json").write_text("{}")
    steering = a_steering(tmp_path / "s.safetensors", model)
    base = content_hash(model)
    told = "{name: whole, kind: observer, title: {en: A, ru: Б}, prompt: {en: C, ru: Д}}"
    return replace(
        parse_role(told, where="r"),
        adapter=registry.keep(adapter, "adapter", base_hash=base, license="MIT"),
        steering=RoleSteering(artefact=registry.keep(steering, "steering"), strength=2.0),
        probe=registry.keep(probe, "probe"),
        parents=("a" * 64,),
        license="CC-BY-4.0",
    )


class TestWholeRoles:
    def test_a_role_with_everything_comes_back_as_it_was(
        self, registry, other, model, adapter, tmp_path
    ):
        role = a_whole_role(registry, model, adapter, tmp_path)
        version = registry.save(role)
        files = export_role(registry, role, tmp_path / "out")
        assert files == [
            "README.md", "adapter_config.json", "adapter_model.safetensors", "probe/p.json",
            "probe/p.safetensors", "role.yaml", "steering.safetensors",
        ]  # fmt: skip
        done = import_role(other, tmp_path / "out", ImportWish())
        assert done.role == role
        assert done.version.content_hash == version.content_hash
        assert done.statements == ()
        assert other.get("whole") == role
        for artefact in (role.adapter, role.steering.artefact, role.probe):
            assert other.folder(artefact).is_dir()

    def test_the_export_is_a_peft_folder(self, registry, model, adapter, tmp_path):
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        role = a_whole_role(registry, model, adapter, tmp_path)
        export_role(registry, role, tmp_path / "out")
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        ids = torch.tensor([[5, 6, 7, 8]])
        plain = base(ids).logits
        with torch.inference_mode():
            exported = PeftModel.from_pretrained(base, tmp_path / "out")(ids).logits
            base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
            original = PeftModel.from_pretrained(base, adapter)(ids).logits
        assert torch.equal(exported, original)
        assert not torch.allclose(exported, plain, atol=1e-2)

    def test_the_card_tells_licence_base_and_lineage(self, registry, model, adapter, tmp_path):
        role = a_whole_role(registry, model, adapter, tmp_path)
        export_role(registry, role, tmp_path / "out")
        card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
        header = yaml.safe_load(card.split("---\n")[1])
        assert header["license"] == "mit"
        assert header["library_name"] == "peft"
        for told in (version_hash(role), "a" * 64, role.adapter.content_hash, "CC-BY-4.0"):
            assert told in card
        assert f"content hash `{content_hash(model)}`" in card

    def test_nothing_is_overwritten_and_nothing_half_is_left(
        self, registry, model, adapter, tmp_path
    ):
        role = a_whole_role(registry, model, adapter, tmp_path)
        (tmp_path / "full").mkdir()
        (tmp_path / "full/x").touch()
        with pytest.raises(OutputError):
            export_role(registry, role, tmp_path / "full")
        shutil.rmtree(registry.folder(role.probe))
        with pytest.raises(RoleError, match="is not in the registry"):
            export_role(registry, role, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_files_that_are_not_what_the_yaml_says_are_refused(
        self, registry, other, model, adapter, tmp_path
    ):
        role = a_whole_role(registry, model, adapter, tmp_path)
        export_role(registry, role, tmp_path / "out")
        weights = load_file(tmp_path / "out/adapter_model.safetensors")
        changed = {name: each * 2 for name, each in weights.items()}
        save_file(changed, tmp_path / "out/adapter_model.safetensors")
        with pytest.raises(RoleError, match=r"role\.yaml says"):
            import_role(other, tmp_path / "out", ImportWish())
        assert "whole" not in other.names()

    def test_a_yaml_alone_needs_its_files_in_the_registry(
        self, registry, other, model, adapter, tmp_path
    ):
        role = a_whole_role(registry, model, adapter, tmp_path)
        export_role(registry, role, tmp_path / "out")
        file = tmp_path / "out/role.yaml"
        assert import_role(registry, file, ImportWish(name="again")).role.name == "again"
        with pytest.raises(RoleError, match="is not in the registry"):
            import_role(other, file, ImportWish())


class TestAdaptersOfOthers:
    def test_a_plain_adapter_becomes_a_new_role(self, registry, adapter):
        done = import_role(registry, adapter, ImportWish())
        role = registry.get("strict")
        assert (role.name, role.kind, role.invocation) == ("strict", "drafter", "")
        assert [key for key, _ in done.statements] == ["base_unknown", "license_unknown"]

    def test_or_the_adapter_of_a_role_that_is_there(self, registry, adapter):
        before = registry.get("logician")
        import_role(registry, adapter, ImportWish(name="logician", license="MIT"))
        role = registry.get("logician")
        assert role.prompt == before.prompt
        assert role.adapter.license == "MIT"
        assert role.parents == (version_hash(before),)
        assert [v.number for v in registry.versions("logician")] == [0, 1]

    def test_the_licence_of_its_card_is_kept(self, registry, adapter, tmp_path):
        folder = shutil.copytree(adapter, tmp_path / "strict")
        (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# x\n")
        done = import_role(registry, folder, ImportWish())
        assert done.role.adapter.license == "apache-2.0"

    def test_with_its_model_named_the_content_is_noted(self, registry, adapter, model):
        done = import_role(registry, adapter, ImportWish(base=model, license="MIT"))
        assert done.role.adapter.base_hash == content_hash(model)
        assert done.statements == ()

    def test_a_model_that_contradicts_the_files_is_stated_and_goes_before(
        self, registry, other, model, adapter, tmp_path
    ):
        role = a_whole_role(registry, model, adapter, tmp_path)
        export_role(registry, role, tmp_path / "out")
        twin = tiny_models.tiny_qwen3_moe(tmp_path / "twin", seed=1)
        done = import_role(other, tmp_path / "out", ImportWish(base=twin))
        assert [key for key, _ in done.statements] == ["base_replaced"]
        assert done.role.adapter.base_hash == content_hash(twin)
        assert done.role.steering.artefact.base_hash == content_hash(twin)

    @pytest.mark.parametrize("changes", [{"hidden_size": 48}, {"num_hidden_layers": 2}])
    def test_an_adapter_of_another_model_is_refused(self, registry, adapter, tmp_path, changes):
        wrong = tiny_models.tiny_qwen3_moe(tmp_path / "wrong", **changes)
        with pytest.raises(CheckpointError, match=r"is not of .*wrong: .*lora_"):
            import_role(registry, adapter, ImportWish(base=wrong))
        assert "strict" not in registry.names()

    def test_pickles_are_refused(self, registry, adapter, tmp_path):
        folder = shutil.copytree(adapter, tmp_path / "strict")
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
        with pytest.raises(CheckpointError, match="pickled adapters are refused"):
            import_role(registry, folder, ImportWish())
        (folder / "adapter_model.safetensors").write_bytes(b"\x80\x04\x95" + bytes(64))
        with pytest.raises(CheckpointError, match="safetensors"):
            import_role(registry, folder, ImportWish())

    @pytest.mark.parametrize("spoil", ["nan", "inf", "flat", "scalar"])
    @pytest.mark.parametrize("is_told_of_a_model", [True, False])
    def test_weights_that_are_no_matrices_of_numbers_are_refused(
        self, registry, model, adapter, tmp_path, spoil, is_told_of_a_model
    ):
        folder = shutil.copytree(adapter, tmp_path / "strict")
        weights = load_file(folder / "adapter_model.safetensors")
        name = sorted(weights)[1]
        if spoil in ("nan", "inf"):
            weights[name][0, 0] = float(spoil)
        else:
            weights[name] = weights[name].ravel() if spoil == "flat" else np.ones((), np.float32)
        save_file(weights, folder / "adapter_model.safetensors")
        wish = ImportWish(base=model if is_told_of_a_model else None)
        with pytest.raises(CheckpointError, match="no matrix of finite numbers") as caught:
            import_role(registry, folder, wish)
        assert name in caught.value.message
        assert str(folder) in caught.value.message  # not the copy's, which is gone
        assert "strict" not in registry.names()

    def test_an_adapter_of_experts_is_refused(self, registry, model, tmp_path):
        folder = an_adapter(tmp_path / "gate", model, target_modules=["gate"])
        with pytest.raises(UnsupportedError, match="changes gate"):
            import_role(registry, folder, ImportWish())

    def test_a_folder_that_is_no_adapter_is_refused(self, registry, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(CheckpointError, match="is no PEFT adapter"):
            import_role(registry, tmp_path / "empty", ImportWish())
        with pytest.raises(RoleError, match="cannot be read"):
            import_role(registry, tmp_path / "nowhere", ImportWish())

    def test_a_folder_whose_name_is_no_roles_asks_for_one(self, registry, adapter, tmp_path):
        folder = shutil.copytree(adapter, tmp_path / "My Adapter!")
        with pytest.raises(RoleError, match="says no name") as caught:
            import_role(registry, folder, ImportWish())
        assert "--name" in caught.value.hint
        with pytest.raises(RoleError, match="is no name of a role"):
            import_role(registry, folder, ImportWish(name="../up"))


class TestInvocations:
    def invoked(self, path, model, text, ids=None):
        ids = text_ids(model)(text) if ids is None else ids
        return an_adapter(path, model, alora_invocation_tokens=list(ids))

    def test_the_text_is_found_by_the_models_tokenizer_and_the_adapter_finds_its_tokens(
        self, registry, model, tmp_path
    ):
        folder = self.invoked(tmp_path / "watcher", model, "\n\n[слово]\n")
        done = import_role(registry, folder, ImportWish(base=model, license="MIT"))
        assert done.role.invocation == "\n\n[слово]\n"
        config = json.loads(
            (registry.folder(done.role.adapter) / "adapter_config.json").read_text()
        )
        assert config["alora_invocation_tokens"] == text_ids(model)("\n\n[слово]\n")
        engine = create(model, dtype="float32")
        with HotSwap(engine, registry).holding([done.role]) as (speaker,):
            trunk = engine.open_trunk(system="", user="Why?")
            branch = speaker.branch(
                voice="v",
                instruction=instruction_for(done.role, "Say it."),
                sampling=Sampling(max_new_tokens=2),
            )
            assert len(engine.decode(trunk, [branch])[0].token_ids) == 2

    def test_without_a_tokenizer_the_text_is_asked_for(self, registry, model, tmp_path):
        folder = self.invoked(tmp_path / "watcher", model, "\n\n[x]\n")
        with pytest.raises(InputError, match="waits for its invocation tokens") as caught:
            import_role(registry, folder, ImportWish())
        assert "--base MODEL" in caught.value.hint
        done = import_role(registry, folder, ImportWish(invocation="\n\n[x]\n"))
        assert done.role.invocation == "\n\n[x]\n"

    def test_a_text_that_becomes_other_tokens_is_refused(self, registry, model, tmp_path):
        folder = self.invoked(tmp_path / "watcher", model, "\n\n[x]\n")
        wish = ImportWish(base=model, invocation="something else")
        with pytest.raises(InputError, match="and the adapter waits for"):
            import_role(registry, folder, wish)

    def test_tokens_that_stand_before_every_answer_need_no_text(self, registry, model, tmp_path):
        markup = create(model, dtype="float32")._format.suffix_ids("")
        folder = self.invoked(tmp_path / "watcher", model, "", ids=markup[-3:])
        assert import_role(registry, folder, ImportWish(base=model)).role.invocation == ""

    @pytest.mark.parametrize("ids", [[2, 2, 2], [10**9]])
    def test_tokens_that_no_text_becomes_are_refused(self, registry, model, tmp_path, ids):
        folder = self.invoked(tmp_path / "watcher", model, "", ids=ids)
        with pytest.raises(InputError, match="invocation tokens"):
            import_role(registry, folder, ImportWish(base=model))
