"""The experiments of Qiao, Yang and Li, "Defending neural backdoors via generative distribution modeling", 2019.

3 x 3 triggers at random places: attack a net by fine-tuning, search for triggers with the max-entropy staircase (MESA)
and with single triggers in pixel space, retrain with what was found, and measure what is left of the attack. Beside
them the oracle (the true trigger), two control arms without triggers, and the same without the slides' crutches:
unknown size, unknown target, a fixed place.

`plan` says what runs, `arms` what each repair is told, `stages` runs it, `collect` reads the runs, `tables`, `figures`
and `write` show them. Every stage is a run in a folder of its own, so a killed command goes on where it was. Cases
(one trigger each) run side by side in processes. Repaired nets are not kept, since a repair is repeated from its
settings, and 61 triggers make more than a thousand of them.
"""

from doorward.papers.mesa.arms import skip
from doorward.papers.mesa.estimate import Estimate, dry_run
from doorward.papers.mesa.plan import Case, Plan, Wishes, check, make_plan, only
from doorward.papers.mesa.stages import reproduce
from doorward.papers.mesa.write import write_results

__all__ = [
    "Case", "Estimate", "Plan", "Wishes", "check", "dry_run", "make_plan", "only", "reproduce", "skip", "write_results"
]  # fmt: skip
