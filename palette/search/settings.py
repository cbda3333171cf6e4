"""The options of search, what has a name in them, and what a trial is scored under; known without a model."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_serializer, field_validator

from palette.errors import RecipeError
from palette.fingerprints import fingerprint, fingerprint_file
from palette.registry import Registry, Row
from palette.settings import Settings

SAMPLER, INTERVENTION = "optuna.samplers", "palette.directions:Intervention"
OBJECTIVES = Registry(
    "an objective",
    [
        Row(name, f"palette.search.objectives:{name}", source)
        for name, source in (
            ("target_refusal_score", "mean log-odds of refusing authorised prompts (nats), minimised"),
            ("preserved_refusal_score", "that of preserved and floor prompts (nats), maximised"),
            ("benign_divergence", "mean KL over benign replies (nats a token), minimised"),
        )
    ],
    group="palette.objectives",
)
TASK = "lm_eval:"
"""What stands before the name, or the YAML file, of a task of lm-eval."""
INTERVENTIONS = Registry(
    "an intervention",
    [
        Row("directional_ablation", INTERVENTION, "x − λ(x·r)r (arXiv 2406.11717)"),
        Row("centred_ablation", INTERVENTION, "x − λ((x−μ)·r)r (arXiv 2411.09003)"),
        Row("activation_addition", INTERVENTION, "x − λ((m−μ)·r)r (arXiv 2406.11717)"),
        Row("weight_orthogonalisation", INTERVENTION, "W − λr(rᵀW) (arXiv 2406.11717)"),
    ],
)
SAMPLERS = Registry(
    "a sampler",
    [
        Row("tpe", f"{SAMPLER}:TPESampler", "multivariate Parzen estimators (arXiv 2304.11127)"),
        Row("nsga2", f"{SAMPLER}:NSGAIISampler", "IEEE TEVC 6, 2002, p. 182"),
        Row("nsga3", f"{SAMPLER}:NSGAIIISampler", "IEEE TEVC 18, 2014, p. 577"),
        Row("gp", f"{SAMPLER}:GPSampler", "Gaussian process, expected hypervolume (arXiv 2006.05078)"),
    ],
)


def shown(place: Path | str) -> str:
    """A storage's place as it may be printed: without a password."""
    return re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", str(place)) if isinstance(place, str) else str(place)


@dataclass(frozen=True)
class Scoring:
    """What a trial is scored on, of the validation split."""

    target_prompts: int = 48  # With 24 the score ranked whole replies a little worse.
    other_prompts: int = 8  # Of each preserved, floor and benign group.
    answer_tokens: int = 24  # Of a target's reply: a refusal that begins later is rare and costs more.
    reply_tokens: int = 8  # Of a benign reply that are compared; 16 cost more and told the same.
    first_rung: float = 0.25  # The share of the prompts that a trial is scored on first.


@dataclass(frozen=True)
class Limits:
    """The constraints of a trial; one that breaks any of them is infeasible."""

    divergence: float = 0.5  # The largest benign divergence (nats a token).
    relaxation: float = 1.0  # Nats by which the target's score must fall at least.
    selectivity: float = 1.0  # Nats by which preserved or floor scores may fall more than the target's.
    false_refusals: float = 0.0  # The largest rise of the share of benign prompts refused, above chance.
    hopeless: float = 2.0  # A trial ends at its first rung at this many times a limit.


@dataclass(frozen=True)
class Caching:
    """The exact caching of a trial; each can be switched off, and changes no score."""

    layer_prefix: bool = True  # Run only the blocks from the first edited one.
    template_prefix: bool = True  # Run what all prompts begin with once a trial.
    beginnings: bool = True  # Run what works on each position apart once where rows begin alike.
    last_block: bool = True  # Run the last feed-forward and the head only where logits are read.
    cache_gib: float = 2.0  # Memory for kept streams; fewer sites if it is short.


@dataclass(frozen=True)
class Audit:
    """What is generated at full length once the trials are done. Floor prompts never are."""

    members: int = 8  # Of the front, the first by the rule of choice.
    sample: int = 8  # Trials drawn at random from all others.
    prompts: int = 24  # Validation prompts of the target, and of all preserved domains.
    reply_tokens: int = 128
    seconds: float = 75.0  # Of a usual machine, for all of them; two of each are always audited.

    def within(self, seconds: float) -> Audit:
        """The same with as many trials as fit into its time, where each takes so many seconds."""
        most = max(2, int(self.seconds / (2 * seconds)))
        return replace(self, members=min(self.members, most), sample=min(self.sample, most))


@dataclass(frozen=True)
class Conditions:
    """All that a trial is scored under; a recipe gives a part of it, tests and benchmarks any."""

    scoring: Scoring = Scoring()
    limits: Limits = Limits()
    caching: Caching = Caching()
    audit: Audit = Audit()


def _of(table: Registry) -> Callable[[str], str]:
    """A validator that takes a table's own names: an adapter is trained by them, with no file at hand."""

    def checked(name: str) -> str:
        if name not in table:
            raise ValueError(f"{table.noun} must be one of {', '.join(table)}")
        return name

    return checked


def _objective(name: str) -> str:
    """The name of an objective, if it can be one; nothing is imported for it.

    Raises:
        ValueError: if it is neither a row's, nor of a file or task that is there and can be asked.
    """
    if not name.startswith(TASK):
        return OBJECTIVES.checked(name)
    task = name.removeprefix(TASK)
    if find_spec("lm_eval") is None:
        raise ValueError(f"{name} is asked by lm-eval, which is not here; pip install 'palette-llm[eval]'")
    if not task or (is_task_file(task) and not Path(task).is_file()):
        raise ValueError(
            f"{TASK} must name a task of lm-eval, or a YAML file that is there, not {task or 'none'}"
        )
    return name


def is_task_file(task: str) -> bool:
    """Whether a task is given as a YAML file of its own, not by a name that lm-eval knows."""
    return Path(task).suffix in {".yaml", ".yml"}


def _task_identity(task: str) -> str:
    """The digest of a task's file and the files that it names; of lm-eval's own task its name."""
    if not is_task_file(task):
        return task
    path = Path(task)
    words = re.findall(r"[^\s\"',:\[\]{}]+\.\w+", path.read_text(encoding="utf-8", errors="replace"))
    # `!function reading.rows` is what reading.py has.
    places = [place for word in words for place in (word, f"{word.partition('.')[0]}.py")]
    files = {place for word in places for place in (Path(word), path.parent / word) if place.is_file()}
    return fingerprint([fingerprint_file(each) for each in [path, *sorted(files)]])


class SearchSettings(Settings):
    """Options of the stage search."""

    free: ClassVar[frozenset[str]] = frozenset({"trials", "choose", "workers"})

    trials: int = Field(64, ge=1, description="trials of the study")
    sampler: Annotated[str, AfterValidator(_of(SAMPLERS))] = Field(
        "tpe", description=f"how trials are drawn: {', '.join(SAMPLERS)}"
    )
    objectives: tuple[Annotated[str, AfterValidator(_objective)], ...] = Field(
        tuple(OBJECTIVES),
        description="what a trial is worth, the first leads ties; file.py:name is a function of your own, "
        "lm_eval:TASK the accuracy that a task of lm-eval loses",
    )
    methods: tuple[Annotated[str, AfterValidator(_of(INTERVENTIONS))], ...] = Field(
        ("directional_ablation", "centred_ablation", "activation_addition"),
        description=f"interventions tried, of {', '.join(INTERVENTIONS)}",
    )
    choose: int | None = Field(
        None, ge=0, description="the trial to take from the front (default: by the rule)"
    )
    workers: int = Field(1, ge=1, description="processes that share the study on this machine")
    storage: str | None = Field(
        None,
        description="an Optuna storage shared by machines, a database's URL or grpc://host:port "
        "(default: a journal in the run's folder)",
    )
    divergence: float = Field(Limits.divergence, gt=0, description="largest benign divergence (nats a token)")
    relaxation: float = Field(
        Limits.relaxation, description="nats by which the target's refusal score must fall at least"
    )

    @field_validator("objectives", "methods")
    @classmethod
    def _some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # A least length would be missed beside every mistyped name as well.
        if not names:
            raise ValueError("one must be named at least")
        return names

    @field_serializer("storage")
    def _without_password(self, storage: str | None) -> str | None:
        # The report carries the recipe, and people pass reports on.
        return None if storage is None else shown(storage)

    def conditions(self, limit: int | None, reply_tokens: int, memory_gib: float) -> Conditions:
        """What a trial is scored under, by these options and the run's own.

        Half of the memory is for kept streams. As many trials are audited, of the front and of all others
        each, as make an eighth of them: a search of few trials is not worth a longer audit than itself.
        """
        most, audited = limit or sys.maxsize, min(Audit.members, max(1, self.trials // 8))
        targets, others = min(Scoring.target_prompts, most), min(Scoring.other_prompts, most)
        return Conditions(
            Scoring(
                targets,
                others,
                min(Scoring.answer_tokens, reply_tokens),
                min(Scoring.reply_tokens, reply_tokens),
            ),
            Limits(self.divergence, self.relaxation),
            Caching(cache_gib=memory_gib / 2),
            Audit(audited, audited, min(Audit.prompts, most), reply_tokens),
        )

    def own_files(self) -> dict[str, str]:
        """The identity of each objective that is not one of ours, such as its file's digest; each is loaded.

        Raises:
            RecipeError: if one cannot be run, or does not have what the recipe takes from it.
        """
        own = [name for name in self.objectives if name not in OBJECTIVES]
        for name in own:
            objective_named(name)
        return {
            name: _task_identity(name.removeprefix(TASK))
            if name.startswith(TASK)
            else OBJECTIVES.identity(name) or ""
            for name in own
        }


def objective_named(name: str) -> tuple[Callable[[Any], float], Literal["minimize", "maximize"]]:
    """The function of an objective, ours, of a user's file or of a task, and its direction.

    Raises:
        RecipeError: if a user's file gives no function, or one of another direction.
    """
    if name.startswith(TASK):
        return partial(_lost, name), "minimize"
    function = OBJECTIVES.row(name).load()
    direction: Any = getattr(function, "direction", "minimize")
    if not callable(function) or direction not in ("minimize", "maximize"):
        raise RecipeError(
            "an objective must be a function; its direction, if it has one, is minimize or maximize",
            got=repr(direction) if callable(function) else type(function).__name__,
            where=f"search.objectives: {name}",
        )
    return function, "maximize" if direction == "maximize" else "minimize"


def _lost(name: str, trial: Any) -> float:
    return float(trial.lost[name])


_GONE = {
    "it stays at what its default was": "search.startup search.directions search.strength search.widths "
    "search.panel.first_rung search.panel.dominating search.limits.selectivity search.limits.hopeless "
    "search.limits.false_refusals collect.fewest collect.filter",
    "what is exact is always saved": "search.savings.layer_prefix search.savings.template_prefix "
    "search.savings.prompts search.savings.last_block search.savings.base_logits "
    "search.savings.trials_per_pass",
    "limit says it for every stage": "search.panel.target_prompts search.panel.other_prompts "
    "search.audit.prompts collect.prompts",
    "an eighth of search.trials each": "search.audit.members search.audit.sample",
    "reply_tokens says it for every stage": "search.panel.reply_tokens search.audit.reply_tokens "
    "collect.reply_tokens",
    "memory_gib says it for every stage": "search.savings.cache_gib collect.covariance_gib",
    "floor_tokens says it for every stage": "collect.floor_tokens",
    "it is called search.divergence": "search.limits.divergence",
    "it is called search.relaxation": "search.limits.relaxation",
}
REMOVED = {key: sentence for sentence, keys in _GONE.items() for key in keys.split()}
"""What replaced each key of a recipe that is no more."""
