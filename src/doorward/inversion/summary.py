"""From the outcomes of the methods to one record with its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from doorward.core.classifier import Classifier, measure_accuracy
from doorward.core.images import ImageSet
from doorward.core.results import ImagesRecord, RateRecord, plain
from doorward.core.stats import Rate
from doorward.inversion.files import picture_rows, trigger_files
from doorward.inversion.judge.natural import natural_test
from doorward.inversion.judge.pairs import nearest
from doorward.inversion.results import (
    ClassRow,
    ClassVerdict,
    Inversion,
    InvertRecord,
    MethodRecord,
    SuspectRecord,
    Target,
    ThumbnailRows,
)
from doorward.inversion.search.runner import Outcome
from doorward.inversion.verdict import favoured_sentence, judge, shift_sentence, together, weigh


def summarise(
    model: Classifier, outcomes: Mapping[str, Outcome], images: ImageSet | None, level: float, seed: int
) -> Inversion:
    """Weigh the methods and put all plain values into a record.

    Args:
        images: clean images; None where the methods did without.
    """
    weighed = weigh(together(list(outcomes.values())), len(model.classes), level)
    targets = tuple(
        _target(outcomes, label, model.classes[label], float(weighed.classes[label])) for label in weighed.labels
    )
    undecided = {m: o.undecided for m, o in outcomes.items()}
    also = _shifts(outcomes, model.classes, level) + _favoured(outcomes, targets)
    judgement, findings = judge(weighed.p_value, targets, undecided, also)
    record = InvertRecord(
        judgement=judgement,
        findings=findings,
        level=level,
        targets=targets,
        classes=tuple(
            ClassVerdict(class_name=name, label=k, p_value=float(weighed.classes[k]))
            for k, name in enumerate(model.classes)
        ),
        images=None if images is None else ImagesRecord.of(images),
        classifier=_classifier(model, images),
        methods={name: _method(name, outcome, level) for name, outcome in outcomes.items()},
        thumbnails=None if images is None else ThumbnailRows(**picture_rows(outcomes, images)),
    )
    return Inversion(record, outcomes, model, images, seed=seed)


def _shifts(outcomes: Mapping[str, Outcome], classes: Sequence[str], level: float) -> list[str]:
    """What methods say that see every class near to another one."""
    told = []
    for outcome in outcomes.values():
        pairs, shift = outcome.inverted.pairs, outcome.shift
        if pairs is not None and shift is not None and shift.p_value <= level:
            named = {classes[source]: classes[target] for source, target in nearest(pairs).items()}
            told.append(shift_sentence(shift.p_value, named))
    return told


def _favoured(outcomes: Mapping[str, Outcome], targets: Sequence[Target]) -> list[str]:
    """What priors say of the classes that stand out."""
    shares = [o.inverted.details["share"] for o in outcomes.values() if o.inverted.prior]
    return [favoured_sentence(s[t.label], t.class_name) for s in shares for t in targets if s[t.label] == max(s)]


def _target(outcomes: Mapping[str, Outcome], label: int, class_name: str, p_value: float) -> Target:
    """One target, with the trigger of the method that is surest of it and has one."""
    tested = [(o.test.classes[label], name) for name, o in outcomes.items() if o.test is not None]
    ranked = [outcomes[name] for _, name in sorted(tested)]
    shown = next((o for o in ranked if o.inverted.triggers), ranked[0])
    size, files = shown.inverted.size, trigger_files(shown.method.name, shown.inverted).get(label, ())
    first = -1 if label in shown.inverted.distributions else 0  # a distribution's file is the last
    return Target(
        class_name=class_name,
        label=label,
        p_value=p_value,
        asr=_rate(shown.success.get(label)),
        carried=_rate(shown.carried.get(label)),
        natural=natural_test(label, shown.success, shown.carried),
        size=None if size is None else float(size[label]),
        method=shown.method.name,
        file=f"triggers/{files[first]}" if files else "",
    )


def _rate(rate: Rate | None) -> RateRecord | None:
    return None if rate is None or not rate.trials else RateRecord.of(rate)


def _method(name: str, outcome: Outcome, level: float) -> MethodRecord:
    inverted, test = outcome.inverted, outcome.test
    return MethodRecord(
        p_value=None if test is None else test.p_value,
        undecided=outcome.undecided,
        meaning=inverted.meaning,
        given=tuple(sorted(outcome.method.given)),
        knowledge=outcome.knowledge,
        settings=outcome.settings.model_dump(mode="json"),
        seconds=round(outcome.seconds, 3),
        warnings=inverted.warnings,
        details=plain(inverted.details),
        triggers=trigger_files(name, inverted),
        classes=tuple(_row(outcome, k, level) for k in range(len(inverted.statistic))),
    )


def _row(outcome: Outcome, label: int, level: float) -> ClassRow:
    inverted, test, size = outcome.inverted, outcome.test, outcome.inverted.size
    return ClassRow(
        label=label,
        statistic=float(inverted.statistic[label]),
        p_value=None if test is None else float(test.classes[label]),
        reference=None if outcome.reference is None else float(outcome.reference[label]),
        size=None if size is None else float(size[label]),
        asr=_rate(outcome.success.get(label)),
        converged=bool(inverted.converged[label]),
        works=bool(inverted.works[label]),
        ran_out=bool(inverted.ran_out[label]),
        stands_out=test is not None and bool(test.classes[label] <= level),
    )


def _classifier(model: Classifier, images: ImageSet | None) -> SuspectRecord:
    accuracy = None
    if images is not None and len(images.classes) == len(model.classes):
        accuracy = RateRecord.of(measure_accuracy(model, images))
    return SuspectRecord(
        arch=model.arch,
        accuracy_on_images=accuracy,
        classes=len(model.classes),
        shape=model.shape,
        mean=model.mean,
        std=model.std,
    )
