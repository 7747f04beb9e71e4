"""The built-in world: fictitious people, and a small VLM that has memorised them."""

from unsee.world.card import card as card
from unsee.world.card import show as show
from unsee.world.make import FAMILIES as FAMILIES
from unsee.world.make import make as make
from unsee.world.make import materialise as materialise
