"""The image that every task runs in: built once from the Dockerfile, and reused as long as its recipe is the same."""

import hashlib
import os

from errors import StageError
from process import execute
from sandbox import image_id

RECIPE_LABEL = "fleet.lite.recipe"
BUILD_S = 1200.0
PASSED = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def build(name, base, folder, say):
    """Return the document of image `name`; built when it is missing or was made from another recipe."""
    recipe = (folder / "Dockerfile").read_bytes()
    digest = hashlib.sha256(recipe + b"\0" + base.encode()).hexdigest()
    found = image_id(name)
    document = {"schema": "fleet.lite-image/1", "image": name, "image_id": found, "recipe": digest, "built": False}
    if found and _recipe(name) == digest:
        return document
    say("building %s; this is done once" % name)
    argv = ["docker", "build", "--tag", name, "--label", "%s=%s" % (RECIPE_LABEL, digest)]
    argv += ["--build-arg", "BASE=" + base] if base else []
    argv += [word for setting in PASSED if setting in os.environ for word in ("--build-arg", setting)]
    # The recipe on stdin: nothing of this directory is sent.
    done = execute("image", [*argv, "-"], BUILD_S, feed=recipe)
    if done.code != 0:
        raise StageError("image", "the image was not built; where no registry can be reached, see base.sh", done.output)
    return dict(document, image_id=image_id(name), built=True)


def _recipe(name):
    done = execute(
        "image", ["docker", "image", "inspect", "--format", '{{index .Config.Labels "%s"}}' % RECIPE_LABEL, name], 20
    )
    return done.output.strip()
