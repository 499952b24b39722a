"""The JSON Schema, and the example profiles measured against it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tunneld.profile import as_toml, conflicts, load, schema

EXAMPLES = sorted((Path(__file__).parents[2] / "profiles").glob("*.toml"))
assert len(EXAMPLES) >= 3


def fields() -> list[tuple[str, dict[str, Any]]]:
    """Every key of every table, with its schema."""
    whole = schema()
    named = [(name, field) for name, field in whole["properties"].items()]
    for table, described in whole["$defs"].items():
        named += [(f"{table}.{name}", field) for name, field in described["properties"].items()]
    return named


def test_the_schema_is_a_schema() -> None:
    """It declares draft 2020-12 and is valid by it."""
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize(("name", "field"), fields(), ids=[name for name, _ in fields()])
def test_every_key_has_a_title_and_says_what_it_is(name: str, field: dict[str, Any]) -> None:
    """Editors show both while the user writes; no default is null, which TOML does not have."""
    assert field["title"]
    assert "description" in field or "$ref" in field
    assert field.get("default", 0) is not None


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_a_profile(file: Path) -> None:
    """The schema and load() accept it, as it is written and with its defaults filled in."""
    validator = Draft202012Validator(schema())
    validator.validate(tomllib.loads(file.read_text()))
    validator.validate(tomllib.loads(as_toml(load(str(file)))))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_says_what_it_is_for(file: Path) -> None:
    """Its first line is a comment, and anybody can try it without keys of a certain name."""
    assert file.read_text().startswith("# ")
    assert load(str(file)).relay.identity == ()


def test_the_examples_show_every_kind_of_forward() -> None:
    """Remote, local and dynamic ones; a jump host and mosh, too; and all of them can run side by side."""
    profiles = [load(str(file)) for file in EXAMPLES]
    assert {forward.direction.value for each in profiles for forward in each.forward} == {"remote", "local", "dynamic"}
    assert any(each.relay.jump for each in profiles)
    assert any(each.mosh for each in profiles)
    assert conflicts(profiles) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"relay": {}},
        {"relay": {"host": "r"}},
        {"relay": {"host": "r"}, "forward": []},
        {"relay": [], "mosh": {"bind": "::"}},
        {"relay": [{"hots": "r"}], "mosh": {"bind": "::"}},
        {"relay": {"host": "r"}, "mosh": {"bind": "::"}, "mode": "both"},
        {"relay": {"host": "r", "hots": "r"}, "mosh": {"bind": "::"}},
        {"relay": {"host": "r"}, "mosh": {}},
        {"relay": {"host": "r", "port": "22"}, "mosh": {"bind": "::"}},
        {"relay": {"host": "r"}, "forward": [{"listen": "127.0.0.1:1"}]},
        {"relay": {"host": "r"}, "forward": [{"listen": "127.0.0.1:1", "direction": "dynamic", "to": "a:1"}]},
        {"relay": {"host": "r"}, "mosh": {"bind": "::"}, "keepalive": {"count": 0}},
    ],
)
def test_the_schema_refuses_what_load_refuses(wrong: dict[str, Any]) -> None:
    """As far as a schema can: by shape, name, type and range."""
    assert not Draft202012Validator(schema()).is_valid(wrong)
