"""The built-in world: fictitious people, and a small VLM that has memorised them."""

from unsee.world.card import show as show
from unsee.world.card import world_card as world_card
from unsee.world.make import FAMILIES as FAMILIES
from unsee.world.make import make_world as make_world
from unsee.world.make import materialise as materialise
