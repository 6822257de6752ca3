"""The nine stages of the demo: what each reads, makes and depends on."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from veche.core.errors import VerificationError
from veche.core.files import atomic_writer, read_json_object, sha256_of, write_json
from veche.core.language import Language
from veche.core.paths import home
from veche.core.progress import Progress
from veche.core.transcript import OnEvent
from veche.demo.chain import Stage, code_hash
from veche.demo.source import source_folder, weights_file
from veche.engines.protocol import OnToken
from veche.surgery.names import PLAN_NAME

GPU = "rtx-pro-6000"
NUM_EXPERTS = 16
MAX_TOKENS_PER_VOICE = 96
_CARVE_NAME = "veche_carve.json"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Where the demo works, and what it asks.

    Attributes:
        folder: where results go.
        question: what the council is asked.
        language: of messages, prompts and the report.
        progress: where to report.
        on_event: told of each event of the council.
        on_token: told of each piece of a voice's text.
    """

    folder: Path
    question: str
    language: Language
    progress: Progress
    on_event: OnEvent | None = None
    on_token: OnToken | None = None

    @cached_property
    def carved(self) -> Path:
        """The carved model, under VECHE_HOME, named by what it was made from."""
        made_from = [sha256_of(weights_file()), NUM_EXPERTS, code_hash("veche.surgery")]
        key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:12]
        return home() / "models" / f"smollm2-135m-carved-{key}"

    @property
    def model(self) -> Path:
        """The grown model."""
        return self.folder / "model"

    def file(self, name: str) -> Path:
        """Return the path of a result."""
        return self.folder / name

    def stages(self) -> list[Stage]:
        """Return the chain, in order."""
        weights = weights_file()
        return [
            Stage(
                name="source",
                outputs=(self.file("source.json"),),
                settings=[str(weights), weights.stat().st_size],
                run=self._source,
            ),
            Stage(
                name="carve",
                outputs=(self.carved, self.file("carve.json")),
                settings=str(self.carved),
                run=self._carve,
            ),
            Stage(
                name="plan",
                outputs=(self.file("plan.json"),),
                settings={"recipe": "demo", "language": self.language},
                run=self._plan,
            ),
            Stage(name="build", outputs=(self.model,), settings=None, run=self._build),
            Stage(
                name="verify", outputs=(self.file("verify.json"),), settings=None, run=self._verify
            ),
            Stage(
                name="launch",
                outputs=(self.file("launch.json"),),
                settings={"recipe": "agi", "gpu": GPU},
                run=self._launch,
            ),
            Stage(
                name="ask",
                outputs=tuple(
                    map(self.file, ("transcript.jsonl", "routing.safetensors", "ask.json"))
                ),
                settings=self.question,
                run=self._ask,
            ),
            Stage(
                name="see",
                outputs=(self.file("experts.png"), self.file("experts.json")),
                settings=None,
                run=self._see,
            ),
            Stage(
                name="report",
                outputs=(self.file("report.html"),),
                settings=None,
                run=self._report,
            ),
        ]

    def _source(self) -> None:
        write_json(self.file("source.json"), {"folder": str(source_folder())})

    def _source_folder(self) -> Path:
        return Path(read_json_object(self.file("source.json"))["folder"])

    def _carve(self) -> None:
        kept = self.carved / _CARVE_NAME
        if not kept.is_file():
            from veche.surgery.carving.carve import CarveSettings, carve

            shutil.rmtree(self.carved, ignore_errors=True)
            report = carve(
                self._source_folder(),
                self.carved,
                CarveSettings(num_experts=NUM_EXPERTS),
                progress=self.progress,
            )
            write_json(kept, report.as_dict())
        write_json(self.file("carve.json"), read_json_object(kept))

    def _plan(self) -> None:
        from veche.planning.planner import make_plan
        from veche.planning.recipe import load_recipe, with_choices

        recipe = with_choices(load_recipe("demo"), {"base": str(self.carved)})
        plan = make_plan(recipe, language=self.language)
        write_json(self.file("plan.json"), plan.as_dict())

    def _build(self) -> None:
        from veche.planning.plan import read_plan
        from veche.surgery.build import build

        if (self.model / PLAN_NAME).is_file():
            shutil.rmtree(self.model)
        plan = read_plan(self.file("plan.json"))
        build(
            plan,
            self.carved,
            self.model,
            resume=True,
            discard_stale=True,
            progress=self.progress,
        )

    def _verify(self) -> None:
        from veche.planning.plan import read_plan
        from veche.surgery.carving.calibration import heldout_text
        from veche.surgery.verification.verify import verify

        plan = read_plan(self.file("plan.json"))
        figures = verify(self.carved, self.model, plan, heldout_text(), progress=self.progress)
        write_json(self.file("verify.json"), figures.as_dict())
        if not figures.passed:
            raise VerificationError(
                "the grown model is not the same function as the carved one: see "
                f"{self.file('verify.json')}",
                hint="please report this, with that file",
            )

    def _launch(self) -> None:
        from veche.launch.profiles import profiles_for
        from veche.planning.planner import make_plan
        from veche.planning.recipe import load_recipe

        spec = make_plan(load_recipe("agi"), language=self.language).target_spec
        profiles = profiles_for(spec, gpu=GPU, engines=["vllm"], language=self.language)
        report = {"model": "agi", "profiles": [profile.as_dict() for profile in profiles]}
        write_json(self.file("launch.json"), report)

    def _ask(self) -> None:
        from veche.council.deliberation import deliberate
        from veche.council.settings import CouncilSettings
        from veche.experts.recording import recording_of_run
        from veche.experts.store import save_recording
        from veche.plugins.registry import load

        transcript = self.file("transcript.jsonl")
        transcript.unlink(missing_ok=True)
        result = deliberate(
            load("engines", "transformers")(self.model),
            self.question,
            settings=CouncilSettings(max_tokens_per_voice=MAX_TOKENS_PER_VOICE),
            transcript=transcript,
            on_event=self.on_event,
            on_token=self.on_token,
            language=self.language,
        )
        recording = recording_of_run(result.routing)
        save_recording(self.file("routing.safetensors"), recording)
        write_json(self.file("ask.json"), result.as_dict())

    def _see(self) -> None:
        from veche.experts.plots import voices_png
        from veche.experts.store import read_recording
        from veche.experts.summary import summarise
        from veche.roles.registry import Registry

        recording = read_recording(self.file("routing.safetensors"))
        titles = Registry().titles(self.language)
        with atomic_writer(self.file("experts.png")) as file:
            file.write(voices_png(recording, titles, self.language))
        write_json(self.file("experts.json"), summarise(recording))

    def _report(self) -> None:
        from veche.demo.report import write_report

        write_report(self.folder, self.question, self.language)
