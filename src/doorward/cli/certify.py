"""``doorward certify`` and ``doorward verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from doorward.cli import common


def certify_command(
    source: Annotated[str, typer.Argument(help="Training and test images are drawn from this set, disjoint.")],
    output: common.Output,
    classes: Annotated[str, typer.Option(help="Class names, separated by commas; default all.")] = "",
    train: Annotated[int, typer.Option(min=1, help="Training images.")] = 100,
    test: Annotated[int, typer.Option(min=1, help="Test images.")] = 1000,
    learner: Annotated[str, typer.Option(help="See 'doorward methods certify'.")] = "two-layer",
    keep: Annotated[str, typer.Option(help="beta: probability that noise keeps a cell, as a decimal or a/b.")] = "0.9",
    keep_labels: Annotated[str | None, typer.Option(help="beta of training labels, when it differs.")] = None,
    keep_test: Annotated[str | None, typer.Option(help="beta of test pixels, when it differs.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="N: models trained on noisy copies.")] = 10_000,
    alpha: Annotated[str, typer.Option(help="Admitted failure probability.")] = "0.001",
    radius: Annotated[int | None, typer.Option(min=0, help="Refuse to start when no vote could reach it.")] = None,
    binarise: Annotated[
        int, typer.Option(min=0, max=255, help="Pixels of this value or more are 1; 0: keep 256 values.")
    ] = 128,
    setting: common.Set = None,
    draw: Annotated[int, typer.Option(min=0, help="Decides which images are drawn.")] = 0,
    skip: Annotated[int, typer.Option(min=0, help="Leave out the first so many images of the classes.")] = 0,
    split: common.Split = "train",
    seed: common.Seed = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: as many as pay.")] = 0,
    engine: Annotated[str, typer.Option(help="local, or ray (RAY_ADDRESS names the cluster).")] = "local",
    device: common.Device = "auto",
    search: Annotated[
        bool | None,
        typer.Option(
            "--search/--no-search", help="Deterministic methods: attack, to see how far radii are from the truth."
        ),
    ] = None,
    overwrite: common.Overwrite = False,
    as_json: common.AsJson = False,
) -> None:
    """Prove how many changed pixels and labels a training procedure withstands.

    For each test image: the largest number of training pixels, training labels and pixels of the image itself,
    together, that can be changed without changing the prediction.

    Example: doorward certify mnist-5k --classes 1,7 --train 100 --test 500 --keep 0.9 --trials 10000 -o run/
    """
    from doorward.certification.job import CertifyRequest, certify_to_folder
    from doorward.core.methods import build_settings

    asked = {
        "source": source,
        "split": split,
        "classes": tuple(c.strip() for c in classes.split(",") if c.strip()),
        "train": train,
        "test": test,
        "learner": learner,
        "settings": common.parse_settings(setting),
        "keep": keep,
        "keep_labels": keep_labels,
        "keep_test": keep_test,
        "trials": trials,
        "alpha": alpha,
        "radius": radius,
        "binarise": binarise or None,
        "draw": draw,
        "skip": skip,
        "seed": seed,
        "workers": workers,
        "engine": engine,
        "device": device,
        "search": search,
    }
    request = build_settings(CertifyRequest, "certify", asked)
    with common.display("certify") as progress:
        results = certify_to_folder(
            request, output, overwrite=overwrite, command=common.command_line(), progress=progress
        )
    if as_json:
        common.print_json(results)
    else:
        _show(results, output)


def _show(results: dict[str, Any], output: Path) -> None:
    joint = results["jointly_certified_accuracy"]
    rows = []
    for radius, share in results["certified_accuracy"].items():
        low, high = results["intervals"][radius]
        shared = f"{100 * joint[radius]:.1f}" if radius in joint else "0.0"
        rows.append([radius, f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]", shared])
    if len(rows) > 14:
        rows = [row for row in rows if int(row[0]) % -(-len(rows) // 12) == 0]
    what = f"{results['learner']}, {results['test_images']:,} test images"
    common.print_table(f"Certified accuracy: {what}", ["radius", "certified %, each image", "all jointly"], rows)
    if results.get("attack_search", {}).get("attacked"):
        gaps, attacked = results["attack_search"]["gaps"], results["attack_search"]["attacked"]
        exact, near = gaps.get("0", 0) / attacked, (gaps.get("0", 0) + gaps.get("1", 0)) / attacked
        told = f"attacks found on {attacked:,} images: the radius is the exact truth for {100 * exact:.0f} % of them"
        common.out.print(f"{told}, at most one cell short for {100 * near:.0f} %", soft_wrap=True)
    if results["abstained"]:
        common.out.print(f"{results['abstained']} images without a certain label; they never count as right")
    common.out.print(
        f"written to {common.escape(str(output))}; check it with: doorward verify ", end="", soft_wrap=True
    )
    common.out.print(common.escape(str(output / "certificate.json")), soft_wrap=True)


def verify_command(
    certificate: Annotated[Path, typer.Argument(help="certificate.json")],
    train_sha256: Annotated[str | None, typer.Option(help="It must be about this training set.")] = None,
    test_sha256: Annotated[str | None, typer.Option(help="It must be about these test images.")] = None,
    as_json: common.AsJson = False,
) -> None:
    """Check a certificate: derive every label and radius again, in integers, with code of its own.

    Ends with exit code 1 when something does not follow. Without the data it cannot know whether votes, evidence or
    true labels were made up together with a new hash; give the data's hashes, or certify again with the same seed.

    Example: doorward verify run/certificate.json
    """
    from doorward.verifier import verify

    report = verify(certificate, train_sha256, test_sha256)
    if as_json:
        told = {
            "valid": report.valid,
            "problems": list(report.problems),
            "images": report.images,
            "method": report.method,
        }
        common.print_json(told)
    elif report.valid:
        common.out.print(f"valid: {report.method}, {report.images:,} images, every radius derived again")
    else:
        for problem in report.problems:
            common.err.print(f"rejected: {common.escape(common.printable(problem))}", soft_wrap=True)
    raise typer.Exit(common.FOUND_NOTHING if report.valid else common.FOUND_SOMETHING)
