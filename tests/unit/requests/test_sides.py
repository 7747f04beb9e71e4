import pytest
from PIL import Image

from unsee.data.images import Photo
from unsee.data.people import Person
from unsee.errors import ConfigError, DataError
from unsee.requests.albums import SIDES, Sides, part, part_all, refuse_missing, refuse_shared


@pytest.fixture
def photo(tmp_path):
    def draw(number):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
        return Photo(path=path)

    return draw


def person(name, *photos, **more):
    return Person(name=name, slug=name, photos=photos, **more)


def people(**sides):
    return {name: sides.get(name, ()) for name in SIDES}


@pytest.mark.parametrize("other", ["retain", "general", "strangers", "celebrity"])
def test_a_name_on_both_sides_however_it_is_written(photo, other):
    mine, theirs = person("JOSE\u0301 ROE", photo(1)), person("José Roe", photo(2))
    with pytest.raises(DataError, match=f"different people in forget and {other}, got José Roe"):
        refuse_shared(people(forget=[mine], **{other: [theirs]}))


def test_a_known_person_who_is_never_given_is_not_among_those_to_keep(photo):
    with pytest.raises(DataError, match="different people in retain and celebrity, got Ada"):
        refuse_shared(people(retain=[person("Ada", photo(1))], celebrity=[person("Ada")]))


def test_the_same_photo_under_another_name(photo):
    with pytest.raises(DataError, match=r"different photos in forget and general, got .*1\.png"):
        refuse_shared(
            people(forget=[person("Ada", photo(1))], general=[person("someone", photo(1))])
        )


def test_a_missing_side_names_its_flag_and_why(photo):
    sides = Sides(people(forget=[person("Ada", photo(1))]), source="r.jsonl", rows=True)
    with pytest.raises(ConfigError) as caught:
        refuse_missing(sides)
    assert str(caught.value) == (
        "--retain: missing; give rows of role retain in r.jsonl, or a folder with photos of other "
        "people whom the model knows; without them it forgets them too"
    )
    with pytest.raises(ConfigError, match="general: missing; give rows of role general in"):
        refuse_missing(sides, given={"retain"})
    refuse_missing(sides, given={"retain", "general"})


def test_named_photos_are_held_out_and_no_others(photo):
    photos = [photo(number) for number in range(8)]
    named = person("Ada", *photos, held_out=(photos[0],))
    assert part(named, 0.25).held_out == (photos[0],)
    assert part(named, 0.25).given == tuple(photos[1:])
    assert part(person("Ada", *photos, held_out=()), 0.25).held_out == ()
    assert part(person("Ada", *photos), 0.25).held_out == tuple(photos[6:])
    singles = [person(str(number), photos[number], held_out=()) for number in range(8)]
    assert all(album.given for album in part_all(singles, 0.25))
