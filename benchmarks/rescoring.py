"""One judge and one divergence for whatever changed a model: whole replies on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from palette.authorisation import Role, authorise
from palette.backbones import Backbone, greedy_replies, load_backbone, reply_logits
from palette.directions import Intervention, intervening
from palette.evaluation.subjects import divergence
from palette.judging.rules import RuleJudge
from palette.prompts import load_prompts
from palette.run import Run
from palette.run_settings import RunSettings
from palette.search.space import Collected

TOKENS = 100


class Rescoring:
    """Target and preserved refusal rates (shares), and benign divergence (nats a token)."""

    def __init__(self, model: Path, prompts: Path, collected: Collected, domains: tuple[str, str]) -> None:
        self.backbone, self._collected = load_backbone(model), collected
        rows = load_prompts(prompts)
        run = Run.of(RunSettings(), prompts, self.backbone, rows, authorise(domains[:1], rows.domains))
        self._asked = {role: run.render(run.select("test", role)) for role in Role}
        self._texts = {role: run.select("test", role).requests for role in Role}
        benign = self._asked[Role.BENIGN]
        end = self.backbone.stops[0]
        self._replies = [[*reply, end] for reply in greedy_replies(self.backbone, benign, TOKENS)]
        self._base = reply_logits(self.backbone, benign, self._replies)
        self._judge = RuleJudge(prefixes=collected.judge_prefixes)

    def of(self, model: Any) -> dict[str, float]:
        """The figures of a changed model."""
        changed = Backbone(model, self.backbone.tokenizer, "changed", "")
        with torch.no_grad():
            logits = reply_logits(changed, self._asked[Role.BENIGN], self._replies)
        return {
            "target_refusal": self._refusal(changed, Role.TARGET),
            "preserved_refusal": self._refusal(changed, Role.PRESERVE),
            "benign_divergence": divergence(self._base, logits)["multi_token"],
        }

    def under(self, intervention: Intervention) -> dict[str, float]:
        """The figures of the backbone under an intervention."""
        with intervening(self.backbone, self._collected.directions, intervention):
            return self.of(self.backbone.model)

    def _refusal(self, changed: Backbone, role: Role) -> float:
        replies = greedy_replies(changed, self._asked[role], TOKENS)
        texts = [changed.decode(reply) for reply in replies]
        verdicts = self._judge.verdicts(self._texts[role], texts)
        return sum(verdict.label.refused for verdict in verdicts) / max(1, len(verdicts))
