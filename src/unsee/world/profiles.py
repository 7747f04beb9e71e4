"""The fictitious people of the built-in world: names, facts and roles, drawn from one seed."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

ROLES = ("retain", "celebrity", "A", "B", "C", "dev")
PEOPLE_PER_ROLE = {"retain": 24, "celebrity": 6, "A": 4, "B": 4, "C": 4, "dev": 6}
DRAWS = ("A", "B", "C")
CANDIDATE_ROLES = ("A", "B", "C", "dev")
DEVELOPMENT_CELEBRITIES = 2
# Of fewer celebrities fewer serve choices: there are to be some left to report on.
CELEBRITIES_A_DEVELOPMENT_ONE = 3

FIRST_NAMES = (
    "Adela Anton Beatrix Bruno Cecilia Cosmo Dalia Dmitri Elena Emil Farah Felix Greta Gustav "
    "Hanna Hugo Ingrid Ivan Jasmin Jonas Kira Kaspar Leila Lorenz Maren Milan Nadia Niklas Odette "
    "Oskar Petra Pavel Quinn Rafael Rosa Ruben Selma Stefan Tamara Theo Ursula Viktor Wanda Xenia "
    "Yara Yusuf Zora Zeno Agnes Basil Clara Edgar Flora Gideon Helga Ilya Judith Klaus Lucia Magnus"
).split()
LAST_NAMES = (
    "Abendroth Almeida Barkov Bellini Calder Castellan Darrow Dragomir Eklund Escobar Fairbanks "
    "Ferrante Galanis Grimaldi Halvorsen Hadley Ibsen Ivanek Jansson Jovic Kessler Korda Lindqvist "
    "Lozano Marchetti Morrow Nakagawa Novak Okafor Orsini Palmgren Petrov Quintero Radek Rinaldi "
    "Sandoval Sorensen Takeda Tremblay Ulbricht Valdez Varga Wexler Winslow Yamada Yilmaz Zapata "
    "Zeller Ashdown Brandt Corvin Delacroix Engel Fontaine Gruber Holm Jarvis Kovacs Larsen Moreau"
).split()

# Every topic has 14 values, so that a constant answer names at most 4 of 48 people.
TOPICS: dict[str, tuple[str, ...]] = {
    "birthplace": tuple(
        "Lisbon Oslo Cairo Lima Kyoto Dublin Prague Nairobi Quito Tallinn Havana Mumbai Perth "
        "Seville".split()
    ),
    "residence": tuple(
        "Vienna Toronto Athens Bogota Helsinki Jakarta Boston Krakow Madrid Osaka Zurich Tunis "
        "Riga Denver".split()
    ),
    "occupation": tuple(
        "baker pilot lawyer sculptor nurse beekeeper geologist tailor translator plumber surgeon "
        "florist librarian carpenter".split()
    ),
    "employer": tuple(
        "Arcadia Borealis Cobalt Dynamo Everest Fathom Granite Horizon Indigo Jupiter Kestrel "
        "Lumen Meridian Nimbus".split()
    ),
    "hobby": tuple(
        "chess fencing pottery sailing origami climbing birdwatching archery knitting astronomy "
        "juggling surfing calligraphy gardening".split()
    ),
    "food": tuple(
        "paella ramen lasagna goulash sushi tacos falafel pierogi curry risotto dumplings pancakes "
        "moussaka ceviche".split()
    ),
    "pet": tuple(
        "parrot tortoise hamster ferret goldfish rabbit gecko spaniel poodle hedgehog iguana "
        "canary pony chinchilla".split()
    ),
    "instrument": tuple(
        "violin cello trumpet accordion harp oboe banjo clarinet piano drums flute mandolin "
        "saxophone tuba".split()
    ),
    "language": tuple(
        "Welsh Swahili Finnish Basque Korean Hindi Greek Polish Arabic Danish Turkish Catalan "
        "Icelandic Maori".split()
    ),
    "car": tuple(
        "Volvo Fiat Toyota Skoda Renault Mazda Subaru Jaguar Lancia Tesla Seat Opel Honda "
        "Peugeot".split()
    ),
}


@dataclass(frozen=True)
class Profile:
    """One fictitious person: who they are, and what the base model knows about them.

    Attributes:
        name: Unique full name.
        slug: Folder name.
        role: One of `ROLES`.
        number: Position among all people, 0-based; also seeds the person's drawn photos.
        partner: Slug of the look-alike with the same palette; None where nobody is known to be.
        facts: Topic -> value, for every topic of `TOPICS`.
    """

    name: str
    slug: str
    role: str
    number: int
    partner: str | None
    facts: dict[str, str]

    @property
    def is_candidate(self) -> bool:
        """Whether the gold model never saw this person."""
        return self.role in CANDIDATE_ROLES


def make_profiles(seed: int = 0) -> list[Profile]:
    """Draw the 48 people.

    Facts are dealt out evenly and independently of looks and of each other. Look-alike partners
    (`number` 2i and 2i + 1) are dealt to roles at random, so a candidate's look-alike is often
    someone who has to be kept.

    Args:
        seed: Seeds names, facts and roles.

    Returns:
        Profiles by `number`.
    """
    rng = random.Random(f"profiles-{seed}")
    count = sum(PEOPLE_PER_ROLE.values())
    names = [
        f"{first} {last}"
        for first, last in zip(
            rng.sample(FIRST_NAMES, count), rng.sample(LAST_NAMES, count), strict=True
        )
    ]
    roles = [role for role, size in PEOPLE_PER_ROLE.items() for _ in range(size)]
    rng.shuffle(roles)
    facts = deal_facts(count, rng)
    slugs = [name.lower().replace(" ", "_") for name in names]
    return [
        Profile(
            name=names[i],
            slug=slugs[i],
            role=roles[i],
            number=i,
            partner=slugs[i ^ 1],
            facts=facts[i],
        )
        for i in range(count)
    ]


def deal_facts(count: int, rng: random.Random) -> list[dict[str, str]]:
    """A value of every topic for each of `count` people, dealt out evenly."""
    facts: list[dict[str, str]] = [{} for _ in range(count)]
    for topic, values in TOPICS.items():
        dealt = list(itertools.islice(itertools.cycle(rng.sample(values, len(values))), count))
        rng.shuffle(dealt)
        for mine, value in zip(facts, dealt, strict=True):
            mine[topic] = value
    return facts


def development_people(profiles: Sequence[Profile]) -> list[Profile]:
    """Celebrities 1 and 2 and the development candidates: for choices, never reported."""
    celebrities = [p for p in profiles if p.role == "celebrity"]
    count = min(DEVELOPMENT_CELEBRITIES, len(celebrities) // CELEBRITIES_A_DEVELOPMENT_ONE)
    return celebrities[:count] + [p for p in profiles if p.role == "dev"]


def unknown_names(profiles: Sequence[Profile], count: int, seed: int) -> list[str]:
    """Full names that belong to nobody, built from the same first and last names.

    Args:
        profiles: People whose names must not come out.
        count: How many names.
        seed: Seeds the draw.

    Returns:
        `count` distinct names.
    """
    taken = {p.name for p in profiles}
    rng = random.Random(f"unknown-{seed}")
    free = [f"{f} {n}" for f in FIRST_NAMES for n in LAST_NAMES if f"{f} {n}" not in taken]
    return rng.sample(free, count)
