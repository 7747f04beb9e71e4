"""The eraser taken off: what a test-time eraser hides is there for whoever has the weights."""

from collections.abc import Sequence
from typing import ClassVar

from unsee.attacks import ATTACKS
from unsee.attacks.protocol import Given, Group, Try
from unsee.models.load import VLM
from unsee.models.passes import bypassed
from unsee.settings import Settings


@ATTACKS.register("removal")
class Removal(Settings):
    """The model without its eraser, with whatever weights it has."""

    group: ClassVar[Group] = "weights"

    def tries(self, vlm: VLM, given: Given) -> Sequence[Try] | str:
        """One try; base and gold have nothing to take off."""
        if not given.has_eraser:
            return "there is no eraser to take off"
        return [Try("off", change=lambda vlm: bypassed())]
