"""Emit a systemd unit that keeps a model served."""

from veche.core.language import Language
from veche.launch.phrases import phrase
from veche.launch.profile import Profile
from veche.launch.serving_file import heading, with_absolute_model
from veche.launch.shell_script import comment_lines


def systemd_unit(profile: Profile, language: Language = "en") -> str:
    """Return a unit for `~/.config/systemd/user` or `/etc/systemd/system`.

    The program is found by PATH, through /usr/bin/env; a local model's path is made absolute,
    because a unit starts in another folder.
    """
    words = with_absolute_model(profile)
    environment = [f"Environment={_quoted(f'{name}={value}')}" for name, value in profile.env]
    return "\n".join(
        [
            *comment_lines([*heading(profile, language), phrase("unit_place", language)]),
            "[Unit]",
            f"Description={_plain(profile.engine)}: {_plain(profile.case.model_path)}",
            "After=network-online.target",
            "Wants=network-online.target",
            "StartLimitIntervalSec=600",
            "StartLimitBurst=3",
            "",
            "[Service]",
            *environment,
            "ExecStart=/usr/bin/env " + " ".join(_quoted(word) for word in words),
            "Restart=on-failure",
            "RestartSec=15",
            "TimeoutStopSec=60",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def _plain(text: str) -> str:
    return " ".join(text.replace("%", "%%").split())


def _quoted(word: str) -> str:
    r"""Quote for systemd: `\` and `"` by a backslash, `%` and `$` by doubling (systemd.syntax)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    escaped = escaped.replace("%", "%%").replace("$", "$$")
    is_plain = escaped and all(c.isalnum() or c in "-_./:=,@+" for c in escaped)
    return escaped if is_plain else f'"{escaped}"'
