"""Unlearning by training or surgery, one paper a file."""

from unsee.registry import Registry

METHODS: Registry = Registry("method", "unsee.methods")

from unsee.methods import ga as ga  # noqa: E402
from unsee.methods import grad_diff as grad_diff  # noqa: E402
from unsee.methods import icu as icu  # noqa: E402
from unsee.methods import kl_min as kl_min  # noqa: E402
from unsee.methods import kuda as kuda  # noqa: E402
from unsee.methods import kvw as kvw  # noqa: E402
from unsee.methods import manu as manu  # noqa: E402
from unsee.methods import mmunlearner as mmunlearner  # noqa: E402
from unsee.methods import npo as npo  # noqa: E402
from unsee.methods import po as po  # noqa: E402
from unsee.methods import rmu as rmu  # noqa: E402
from unsee.methods import sineproject as sineproject  # noqa: E402
from unsee.methods import undial as undial  # noqa: E402
from unsee.methods import unlok as unlok  # noqa: E402
from unsee.methods import vkd as vkd  # noqa: E402
