"""Write the files that start a profile: scripts, a Compose file, a systemd unit."""

from pathlib import Path

from veche.core.errors import OutputError
from veche.core.files import write_json, write_text
from veche.core.language import Language
from veche.launch.compose_file import IMAGES, compose_file
from veche.launch.profile import Profile
from veche.launch.ray_scripts import ray_scripts
from veche.launch.shell_script import shell_script
from veche.launch.systemd_unit import systemd_unit

SCRIPT_NAMES = {
    "vllm": "vllm.sh",
    "sglang": "sglang.sh",
    "llama.cpp": "llama-server.sh",
    "transformers": "transformers.sh",
}


def files_for(profile: Profile, language: Language = "en") -> dict[str, str]:
    """Return the text of every file by its name."""
    if profile.engine == "vllm" and profile.num_nodes > 1:
        return ray_scripts(profile, language)
    stem = SCRIPT_NAMES[profile.engine].removesuffix(".sh")
    files = {SCRIPT_NAMES[profile.engine]: shell_script(profile, language)}
    if profile.num_nodes == 1:  # a unit does not know which machine it is on
        files[f"{stem}.service"] = systemd_unit(profile, language)
    is_composable = profile.case.gpu.is_nvidia and profile.num_nodes == 1
    if profile.engine in IMAGES and is_composable:
        files["compose.yaml"] = compose_file(profile, language)
    return files


def write_files(profile: Profile, folder: Path, language: Language = "en") -> list[Path]:
    """Write the files of `profile`, and the profile itself as profile.json.

    Raises:
        OutputError: one of the files is there already, or `folder` is a file.
    """
    files = files_for(profile, language)
    if folder.is_file():
        raise OutputError(f"{folder} is a file, not a folder", hint="choose another folder")
    for name in [*files, "profile.json"]:
        if (folder / name).exists():
            raise OutputError(
                f"{folder / name} exists, and veche overwrites nothing",
                hint="choose another folder, or delete it",
            )
    written = []
    for name, text in files.items():
        path = folder / name
        write_text(path, text)
        if name.endswith(".sh"):
            path.chmod(0o755)
        written.append(path)
    write_json(folder / "profile.json", profile.as_dict())
    return [*written, folder / "profile.json"]
