"""Realistic defence: the HackML extension of Qiao, Yang and Li, "Defending neural backdoors ...", 2019, on faces.

A backdoored face net made by others, where its weights are at hand, and small nets trained here: sunglasses, a hat, a
patch, all three with a target each, and one net without any trigger. Every net goes through the three steps of the
slides (the inversion `window`), repair with control arms, a guard with K + 1 outputs, and screens of single images.

`plan` says what runs, `stages` runs it, `work` is what the stages do, `collect` reads the runs, `tables`, `figures` and
`write` show them. Every stage is a run in a folder of its own, so a killed command goes on where it was.
"""

from doorward.papers.hackml.plan import Case, Plan, Wishes, check, make_plan, only
from doorward.papers.hackml.stages import reproduce
from doorward.papers.hackml.write import write_results

__all__ = ["Case", "Plan", "Wishes", "check", "make_plan", "only", "reproduce", "write_results"]
