"""``doorward verify``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doorward.cli import common
from doorward.core.errors import DoorwardError

if TYPE_CHECKING:
    from doorward.certification.recheck import Recheck
    from doorward.core.images import ImageSet
    from doorward.verifier import Report

_DATA = "With the data"


def verify_command(
    certificate: Annotated[Path, typer.Argument(help="certificate.json")],
    train_sha256: Annotated[str | None, typer.Option(help="It must be about this training set.")] = None,
    test_sha256: Annotated[str | None, typer.Option(help="It must be about these test images.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="What it was drawn from, or with --test its training set: draw again, compare hashes, classes and "
            "true labels, compute deterministic evidence again.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Its test images, when they were not drawn.", rich_help_panel=_DATA),
    ] = None,
    replay: Annotated[
        int, typer.Option(min=0, help="Train so many random trials again; compare votes.", rich_help_panel=_DATA)
    ] = 0,
    trial_votes: Annotated[
        Path | None,
        typer.Option(help="What each trial voted; default trial-votes.gz beside it.", rich_help_panel=_DATA),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Chooses the trials to replay; default a fresh one.", rich_help_panel=_DATA),
    ] = None,
    device: common.Device = "auto",
    as_json: common.AsJson = False,
) -> None:
    """Check a certificate: derive every label and radius again, in integers, with code of its own.

    Ends with exit code 1 when something does not follow. Without the data it cannot know whether votes, evidence or
    true labels were made up together with a new hash. --data compares them; --replay 20 trains 20 of its trials again,
    so that a file with a share f of invented trials is caught with probability 1 - (1 - f)^20.

    Example: doorward verify run/certificate.json --data mnist-5k --replay 20
    """
    from doorward.verifier import verify

    if data is None and (test is not None or replay or trial_votes is not None):
        raise DoorwardError("verify: --test, --replay and --trial-votes need the data; expected --data SOURCE")
    report = verify(certificate, train_sha256, test_sha256)
    checked = None
    if report.valid and data is not None:
        checked = _with_data(certificate, report, data, test, replay, trial_votes, seed, device)
    problems = report.problems + (checked.problems if checked else ())
    if as_json:
        told: dict[str, Any] = {
            "valid": not problems,
            "problems": list(problems),
            "images": report.images,
            "method": report.method,
            "warnings": list(report.warnings),
            "meaning": report.meaning,
            "with_data": None if checked is None else asdict(checked),
        }
        common.print_json(told)
    else:
        for problem in problems:
            common.err.print(f"rejected: {_plain(problem)}", soft_wrap=True)
        if not problems:
            _show(report, checked)
    raise typer.Exit(common.FOUND_SOMETHING if problems else common.FOUND_NOTHING)


def _with_data(
    certificate: Path,
    report: Report,
    data: str,
    test: str | None,
    replay: int,
    trial_votes: Path | None,
    seed: int | None,
    device: str,
) -> Recheck:
    from doorward.certification.recheck import recheck

    train_set, test_set = _pair(certificate, report, data, test)
    with common.display("verify") as progress:
        return recheck(
            certificate,
            train_set,
            test_set,
            replay=replay,
            trial_votes=trial_votes,
            seed=seed,
            device=device,
            progress=progress,
        )


def _pair(certificate: Path, report: Report, data: str, test: str | None) -> tuple[ImageSet, ImageSet]:
    """The two sets: as they are, or drawn again as the certificate says, or an older one's run beside it."""
    from doorward.certification.job import draw_again
    from doorward.certification.request import Draw
    from doorward.core.runs import Run
    from doorward.core.settings import build_settings
    from doorward.data.sources import load_images, load_test_images

    if test is not None:
        return load_images(data), load_test_images(test)
    said = report.meaning["settings"].get("draw")
    if said is None and (certificate.parent / "run.json").exists():
        made = Run.read(certificate.parent, "certify").get("settings", {})
        said = {name: made[name] for name in Draw.model_fields if name in made}
    if said is None:
        raise DoorwardError(
            f"{certificate}: does not say how its images were drawn; expected --test SOURCE, so that --data is the "
            "training set itself"
        )
    return draw_again(data, build_settings(Draw, f"{certificate}: draw", said))


def _show(report: Report, checked: Recheck | None) -> None:
    """What a valid file means."""
    from fractions import Fraction  # brings decimal with it, which no other command needs

    m = report.meaning
    say = common.out.print
    say(f"valid: {report.method}, {report.images:,} images, every radius derived again")
    for warning in report.warnings:
        common.err.print(f"WARNING: {_plain(warning)}", soft_wrap=True)
    if m["trials"]:
        say(f"confidence {m['confidence']} (alpha {m['alpha']}), {m['trials']:,} trials", soft_wrap=True)
        for name, block in m["noise"].items():
            cells = "" if block["cells"] is None else f", {block['cells']:,} cells"
            kept = float(Fraction(block["keep"]))
            say(
                f"noise on {name}: each kept with probability {kept:.6g} of {block['domain']} values{cells}",
                soft_wrap=True,
            )
    else:
        say("certain: no sampling, no failure probability")
    say(f"largest radius {m['largest_radius']}; {m['abstained']:,} images without a certain label")
    say(f"withstands {m['threat']}", soft_wrap=True)
    for name, sha in m["data"].items():
        say(f"{name} {sha}", soft_wrap=True)
    if checked is None:
        told = "not checked: the data, and whether votes or evidence were made up; give --data"
        say(told + (" and --replay" if m["trials"] else ""), soft_wrap=True)
        return
    say(f"compared with the data: {'; '.join(checked.compared)}", soft_wrap=True)
    if checked.replayed:
        count, of = len(checked.replayed), checked.of
        say(
            f"replayed {count:,} of {of:,} trials (--seed {checked.seed}), on {checked.device}: the same votes",
            soft_wrap=True,
        )
        odds = ", ".join(f"{100 * float(f):g} %: in {_cut(100 * p)} %" for f, p in checked.caught.items())
        say(f"a share f of false trials is caught with probability 1 - (1 - f)^{count}: {odds}", soft_wrap=True)
    elif m["trials"]:
        say("no trial was replayed: votes may be made up; give --replay", soft_wrap=True)


def _cut(percent: float) -> str:
    """Never rounded up to certainty."""
    return f"{percent:.1f}" if percent < 99.95 else "more than 99.9"


def _plain(text: str) -> str:
    return common.escape(common.printable(text))
