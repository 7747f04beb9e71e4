"""The families that a world can be built of."""

from unsee.world.architecture import Architecture
from unsee.world.llava import Llava
from unsee.world.qwen2_5_vl import Qwen25VL

ARCHITECTURES: dict[str, Architecture] = {row.family: row for row in (Llava(), Qwen25VL())}
