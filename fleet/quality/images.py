"""Docker images: which one a result came from, whether that is the right one, and whether hosts agree on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fleet.model.verdict import Reason, Severity, Verdict, outcome_of
from fleet.quality import values

SHOWN = 19
"""Characters of an id that people compare: `sha256:` and twelve digits."""


@dataclass(frozen=True)
class Images:
    """What fleet.json says of the images of one attempt: name → id, None where no image had the name."""

    expected: str | None = None
    start: Mapping[str, str | None] = field(default_factory=dict)
    end: Mapping[str, str | None] = field(default_factory=dict)
    used: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def ran(self) -> dict[str, str]:
        """Name → id in which the eval ran, as far as that is known: the containers' word before the names' at its end."""
        found = {name: self.used.get(name) or image for name, image in self.end.items()}
        return {name: image for name, image in found.items() if image}

    @property
    def image_id(self) -> str | None:
        """The one image that all names meant; None when they disagree or nothing is known."""
        ids = set(self.ran.values())
        return ids.pop() if len(ids) == 1 else None


def read_images(told: Mapping[str, object]) -> Images | None:
    """Return the images in fleet.json, None when it tells of none."""
    parts = {name: values.mapping(told.get(name)) for name in ("start", "end", "used")}
    expected = values.text(told.get("expected"))
    if expected is None and not any(parts.values()):
        return None
    read = {name: {str(key): values.text(value) for key, value in part.items()} for name, part in parts.items()}
    return Images(expected, read["start"], read["end"], read["used"])


def short(image: str | None) -> str:
    """Return an id as people compare it."""
    return values.shown(image[:SHOWN], 40) if image else "no image"


def wrong_images(images: Images) -> Iterator[tuple[Severity, str, str]]:
    """Yield (severity, what is wrong, the id found) of one attempt's images."""
    expected = images.expected
    if expected is not None:
        for name, image in sorted(images.ran.items()):
            if image != expected:
                yield Severity.REJECT, f"{values.shown(name, 200)} was {short(image)}, not {short(expected)}", image
        if images.end and not images.ran:
            yield Severity.REJECT, f"no image of the task was there at the end, {short(expected)} was asked for", ""
        elif not images.end:
            yield Severity.WARN, f"which image it ran in is not known, {short(expected)} was asked for", ""
        return
    for name, image in sorted(images.ran.items()):
        before = images.start.get(name)
        if before and before != image:
            name = values.shown(name, 200)
            yield Severity.WARN, f"{name} was {short(before)} at the start and {short(image)} at the end", image
    if len(set(images.ran.values())) > 1:
        pairs = ", ".join(f"{values.shown(name, 200)} {short(image)}" for name, image in sorted(images.ran.items()))
        yield Severity.WARN, f"the names of the task's image mean different images: {pairs}", ""


def differing(ran: Iterable[tuple[str, str | None, str]]) -> dict[str, dict[str, list[str]]]:
    """Return instance → image id → who ran it there, for instances that ran in several images; from (instance, id, who)."""
    found: dict[str, dict[str, list[str]]] = {}
    for instance, image, who in ran:
        if image is not None:
            found.setdefault(instance, {}).setdefault(image, []).append(who)
    return {instance: images for instance, images in found.items() if len(images) > 1}


def differing_sentence(images: Mapping[str, Sequence[str]]) -> str:
    """Return what is said of an instance that ran in several images."""
    return "the same instance ran in different images: " + "; ".join(
        f"{short(image)} ({values.some(tuple(who))})" for image, who in sorted(images.items())
    )


def flag_differing(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts, those of an instance that ran in several images with a warning.

    The warning is about these results together, so it is shown and never kept in one result's verdict.json.
    """
    found = differing((one.instance_id or "", one.facts.image_id, one.path) for one in verdicts if one.instance_id)
    return [_flagged(one, found.get(one.instance_id or "")) for one in verdicts]


def _flagged(verdict: Verdict, images: Mapping[str, Sequence[str]] | None) -> Verdict:
    if images is None or verdict.facts.image_id is None:
        return verdict
    reason = Reason(code="image-differs", severity=Severity.WARN, file="fleet.json", message=differing_sentence(images) + ".")
    reasons = (*verdict.reasons, reason)
    return verdict.model_copy(update={"reasons": reasons, "verdict": outcome_of(reasons)})
