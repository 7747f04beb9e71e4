from importlib.metadata import EntryPoint, EntryPoints

import pytest

from unsee import registry as registry_module
from unsee.errors import ConfigError
from unsee.registry import Registry


def test_a_component_is_found_by_the_name_it_was_registered_under():
    methods: Registry[type] = Registry("method")

    @methods.register("vkd")
    class VKD:
        pass

    assert methods.get("vkd") is VKD
    assert methods.names() == ["vkd"]
    assert list(methods.items()) == [("vkd", VKD)]


def test_an_unknown_name_is_answered_with_the_nearest_one():
    methods: Registry[type] = Registry("method")
    methods.register("grad_diff")(int)
    with pytest.raises(
        ConfigError, match=r"^unknown method 'grad_dif'; did you mean 'grad_diff'\?$"
    ):
        methods.get("grad_dif")


def test_a_name_unlike_any_other_is_answered_with_all_of_them():
    methods: Registry[type] = Registry("method")
    methods.register("vkd")(int)
    methods.register("npo")(float)
    with pytest.raises(ConfigError, match=r"^unknown method 'amnesia'; known: npo, vkd$"):
        methods.get("amnesia")


def test_a_name_cannot_be_taken_twice():
    methods: Registry[type] = Registry("method")
    methods.register("vkd")(int)
    with pytest.raises(ConfigError, match="method 'vkd' is registered twice"):
        methods.register("vkd")(float)
    assert methods.get("vkd") is int


def test_another_package_joins_by_entry_point_and_is_imported_only_when_asked_for(monkeypatch):
    points = EntryPoints(
        [
            EntryPoint("ordered", "collections:OrderedDict", "unsee.methods"),
            EntryPoint("broken", "no_such_module:thing", "unsee.methods"),
        ]
    )
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points.select(group=group))
    methods: Registry[type] = Registry("method", entry_point_group="unsee.methods")
    assert methods.names() == ["broken", "ordered"]
    assert methods.get("ordered").__name__ == "OrderedDict"
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        methods.get("broken")
