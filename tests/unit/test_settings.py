import pytest
from pydantic import Field, ValidationError

from unsee.errors import ConfigError
from unsee.settings import Settings, overrides, read_toml, resolve


class Optim(Settings):
    lr: float = Field(default=1e-3, gt=0)
    steps: int = 10


class Method(Settings):
    beta: float = 0.1
    target: str = "away"
    optim: Optim = Optim()


def test_missing_fields_take_their_defaults():
    method = resolve(Method, {"beta": 0.2, "optim": {"steps": 3}})
    assert method == Method(beta=0.2, optim=Optim(steps=3))


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Method().beta = 0.5  # pyright: ignore[reportAttributeAccessIssue]


def test_an_unknown_setting_is_answered_with_the_nearest_one_and_its_place():
    with pytest.raises(ConfigError) as caught:
        resolve(Method, {"beat": 0.1}, where="recipes/npo.toml: method")
    assert str(caught.value) == (
        "recipes/npo.toml: method: beat: unknown setting; did you mean 'beta'? (got 0.1)"
    )


def test_an_unknown_setting_in_an_inner_table_is_compared_with_the_names_of_that_table():
    with pytest.raises(ConfigError, match=r"optim\.step: unknown setting; did you mean 'steps'\?"):
        resolve(Method, {"optim": {"step": 2}})


def test_all_faults_are_reported_at_once_in_one_line():
    with pytest.raises(ConfigError) as caught:
        resolve(Method, {"beta": "much", "colour": 1, "optim": {"lr": -1}}, where="x.toml")
    message = str(caught.value)
    assert message.startswith("x.toml: ")
    assert "\n" not in message
    assert "beta: input should be a valid number" in message
    assert "(got 'much')" in message
    assert "optim.lr: input should be greater than 0 (got -1)" in message
    assert "colour: unknown setting; known: beta, target, optim" in message


def test_infinity_is_refused():
    with pytest.raises(ConfigError, match="finite"):
        resolve(Method, {"beta": float("inf")})


def test_a_required_setting_is_asked_for():
    class Strict(Settings):
        needed: int

    with pytest.raises(ConfigError, match=r"^needed: missing, give it a value$"):
        resolve(Strict, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.2", 0.2),
        ("1e-5", 1e-5),
        ("3", 3),
        ("true", True),
        ("away", "away"),
        ('"away"', "away"),
        ("[1, 2]", [1, 2]),
        ("runs/x = y", "runs/x = y"),
        ("", ""),
    ],
)
def test_values_of_overrides_are_toml_or_bare_words(text, value):
    assert overrides([f"method.beta={text}"]) == {"method": {"beta": value}}


def test_overrides_nest_and_the_last_one_wins():
    assert overrides(["a.b.c=1", "a.d=2", "a.d=3"]) == {"a": {"b": {"c": 1}, "d": 3}}


@pytest.mark.parametrize("assignment", ["beta", "=1", "method.=1", ".beta=1"])
def test_an_override_without_name_or_value_is_refused(assignment):
    with pytest.raises(ConfigError, match=r"expected name=value, such as method\.beta=0\.2"):
        overrides([assignment])


@pytest.mark.parametrize("pair", [["a=1", "a.b=2"], ["a.b=2", "a=1"]])
def test_a_name_is_a_value_or_a_table(pair):
    with pytest.raises(ConfigError, match="'a'"):
        overrides(pair)


def test_toml_is_read(tmp_path):
    (tmp_path / "recipe.toml").write_text("[method]\nlr = 1e-5\n")
    assert read_toml(tmp_path / "recipe.toml") == {"method": {"lr": 1e-5}}


def test_a_missing_file_is_named():
    with pytest.raises(
        ConfigError, match=r"^no\.toml: cannot be read \(No such file or directory\)$"
    ):
        read_toml("no.toml")


def test_a_fault_in_a_file_has_its_line(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("[method]\nlr = \n")
    with pytest.raises(ConfigError, match=r"recipe\.toml: not a TOML file: .*line 2"):
        read_toml(path)
