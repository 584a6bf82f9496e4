"""Tasks of a batch that are one instance and ran in different Docker images: what they measured is not the same."""

from __future__ import annotations

from fleet.dispatch.state.views import BatchState
from fleet.model.states import SUCCESS
from fleet.quality.images import differing, differing_sentence

CODE = "image-differs"


def image_differences(state: BatchState) -> dict[str, str]:
    """Return task label → sentence, for the results that count and that ran in another image than their siblings."""
    ran = {
        label: (view.task.key.instance_id, view.facts.image_id)
        for label, view in state.tasks.items()
        if view.state in SUCCESS and view.facts is not None and view.facts.image_id is not None
    }
    found = differing((instance, image, f"{label} on {state.tasks[label].host}") for label, (instance, image) in ran.items())
    return {label: differing_sentence(found[instance]) for label, (instance, _) in ran.items() if instance in found}
