"""A profile's shape as pydantic models: types, ranges, each value's rule, descriptions, and the JSON Schema.

The defaults stand in values.py and core/supervise/backoff.py. Only load() and schema() import this module, since
pydantic is slow to import. The context of a validation is the profile's folder.

Tested in tests/profile/test_schema.py, test_load.py and test_problems.py.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticKnownError, core_schema

from tunneld.core.destination import HIGHEST_PORT
from tunneld.core.supervise.backoff import Limits
from tunneld.profile import rules
from tunneld.profile.address import ForwardAddress, PortRange
from tunneld.profile.values import Canary, Direction, Forward, Keepalive, Profile, Relay

A_DAY = 86400  # seconds; nobody should want a longer wait


def _default(table: type[Any], key: str) -> Any:
    """The default that the class of a table's values states for this key."""
    (default,) = (field.default for field in fields(table) if field.name == key)
    return default


def _folder(info: ValidationInfo) -> Path:
    return cast(Path, info.context)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _single(value: object) -> object:
    """`[relay]` is a list of one relay."""
    return [value] if isinstance(value, dict) else value


def _split(value: object) -> object:
    """`a,b` is two jump hosts, as in ProxyJump of ssh_config(5)."""
    return value.split(",") if isinstance(value, str) else value


def _identity(value: object, info: ValidationInfo) -> Path:
    return rules.identity_file(_text(value), _folder(info))


def _file(value: object, info: ValidationInfo) -> Path:
    return rules.existing_file(_text(value), _folder(info))


def _ssh_config(value: object, info: ValidationInfo) -> bool | Path:
    return value if isinstance(value, bool) else _file(value, info)


def _direction(info: ValidationInfo) -> Direction | None:
    """The forward's direction; None where it is wrong itself, and the values that depend on it cannot be judged."""
    written = info.data.get("direction")
    return None if written is None else Direction(written)


def _listen(value: object, info: ValidationInfo) -> object:
    direction = _direction(info)
    return direction and rules.listen_address(_text(value), direction, _folder(info))


File = Annotated[Path, PlainValidator(_file, json_schema_input_type=str)]
Identity = Annotated[Path, PlainValidator(_identity, json_schema_input_type=str)]
SshConfig = Annotated[bool | Path, PlainValidator(_ssh_config, json_schema_input_type=bool | str)]
Port = Annotated[int, Field(ge=1, le=HIGHEST_PORT)]
OneOrMore = str | list[str]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class RelayTable(Table):
    """The SSH server that the tunnel goes to."""

    model_config = ConfigDict(title="[relay]")  # or [[relay]], when there are several

    host: Annotated[str, AfterValidator(rules.relay_host)] = Field(
        title="Relay",
        description="Name or address of the relay; an alias from ssh_config works.",
        examples=["relay.example.net"],
    )
    port: Port | None = Field(
        default=None,
        title="SSH port",
        description="Port of the relay's sshd. Default: ssh_config's, else 22.",
        examples=[22],
    )
    user: Annotated[str, AfterValidator(rules.user_name)] | None = Field(
        default=None,
        title="User",
        description="Login name on the relay. Default: ssh_config's, else this user's name.",
        examples=["tunnel"],
    )
    identity: Annotated[list[Identity], BeforeValidator(_listed, json_schema_input_type=OneOrMore)] = Field(
        default=[],
        title="Identity",
        description="Private key or certificate, or a list of them. Default: the SSH agent and the usual files.",
        examples=["~/.ssh/id_ed25519"],
    )
    known_hosts: File | None = Field(
        default=None,
        title="Known hosts",
        description="File with the relay's host key. Default: ssh_config's, else ~/.ssh/known_hosts.",
        examples=["~/.ssh/known_hosts"],
    )
    jump: Annotated[
        list[Annotated[str, AfterValidator(rules.jump_host)]],
        BeforeValidator(_split, json_schema_input_type=OneOrMore),
    ] = Field(
        default=[],
        title="Jump hosts",
        description="[USER@]HOST[:PORT] to go through, or several: a list, or with commas between them.",
        examples=["me@bastion"],
    )
    ssh_config: SshConfig = Field(
        default=_default(Relay, "ssh_config"),
        title="ssh_config",
        description="Whether to read ssh_config: true for the usual files, false for none, or a path.",
        examples=[True],
    )


Relays = Annotated[list[RelayTable], Field(min_length=1)]


class ForwardTable(Table):
    """A listener on one side, and what its connections reach on the other."""

    model_config = ConfigDict(
        title="[[forward]]",
        json_schema_extra={
            "if": {"properties": {"direction": {"const": "dynamic"}}, "required": ["direction"]},
            "then": {"properties": {"to": False}},
            "else": {"required": ["to"]},
        },
    )

    # The first field, since the rules of the addresses depend on it, and pydantic judges the fields in this order.
    direction: Literal["remote", "local", "dynamic"] = Field(
        default=_default(Forward, "direction").value,
        title="Direction",
        description="remote: the relay listens; local: this host listens; dynamic: this host is a SOCKS proxy.",
        examples=["remote"],
    )
    listen: Annotated[ForwardAddress, PlainValidator(_listen, json_schema_input_type=str)] = Field(
        title="Listen",
        description="HOST:PORT or a Unix socket's path; on the relay for a remote forward, else on this host. "
        "Port 0 lets the listening side choose.",
        examples=["127.0.0.1:2222"],
    )
    to: Annotated[Any, Field(json_schema_extra={"type": "string"})] = Field(
        default=None,
        validate_default=True,
        title="Target",
        description="HOST:PORT or a Unix socket's path; on this host for a remote forward, on the relay's side for a "
        "local one, and not written for a dynamic one.",
        examples=["127.0.0.1:22"],
    )
    required: bool = Field(
        default=_default(Forward, "required"),
        title="Required",
        description="Whether the tunnel counts as up only while this forward listens.",
        examples=[True],
    )
    canary: bool = Field(
        default=_default(Forward, "canary"),
        title="Canary",
        description="Whether a remote forward is tried end to end, from the relay's side, as often as [canary] says.",
        examples=[False],
    )

    @field_validator("to", mode="plain")
    @classmethod
    def _to(cls, value: object, info: ValidationInfo) -> ForwardAddress | None:
        direction = _direction(info)
        if direction is Direction.DYNAMIC and value is not None:
            raise ValueError("a dynamic forward has no target of its own: remove the line")
        if direction is None or direction is Direction.DYNAMIC:
            return None
        if value is None:
            raise PydanticKnownError("missing")
        return rules.target_address(_text(value), direction, _folder(info))

    @field_validator("canary", mode="after")
    @classmethod
    def _canary(cls, value: bool, info: ValidationInfo) -> bool:
        if _direction(info) in (Direction.LOCAL, Direction.DYNAMIC):
            raise ValueError("only a remote forward has a canary: remove the line")
        return value


class MoshTable(Table):
    """UDP ports on the relay for stock mosh clients."""

    model_config = ConfigDict(title="[mosh]")

    ports: Annotated[
        PortRange, PlainValidator(lambda value: rules.mosh_ports(_text(value)), json_schema_input_type=str)
    ] = Field(
        default=PortRange(60001, 60010),
        title="Ports",
        description="UDP ports, the first and the last: on the relay, and for mosh-server on this side.",
        examples=["60001-60010"],
    )
    bind: Annotated[str, AfterValidator(rules.mosh_bind)] = Field(
        title="Bind",
        description='The relay\'s IP address for these ports. It makes them public, so it has no default; "0.0.0.0" is '
        "the whole world.",
        examples=["0.0.0.0"],
    )
    to: Annotated[str, AfterValidator(rules.mosh_target)] | None = Field(
        default=None,
        title="Host of mosh-server",
        description="Host on which mosh-server listens, seen from here. Default: the target's host of the first remote "
        "forward, else 127.0.0.1.",
        examples=["127.0.0.1"],
    )


class KeepaliveTable(Table):
    """When a silent relay counts as dead: after interval * (count + 1) seconds."""

    model_config = ConfigDict(title="[keepalive]")

    interval: float = Field(
        default=_default(Keepalive, "interval"),
        ge=0.1,
        le=3600,
        title="Interval",
        description="Seconds of silence before the relay is asked for a sign of life.",
        examples=[_default(Keepalive, "interval")],
    )
    count: int = Field(
        default=_default(Keepalive, "count"),
        ge=1,
        le=100,
        title="Count",
        description="Questions without an answer, after which the relay counts as dead.",
        examples=[_default(Keepalive, "count")],
    )


class BackoffTable(Table):
    """How long to wait between sessions, in seconds."""

    # Defaults are judged as well: `maximum = 0.5` alone is shorter than the default of `initial`.
    model_config = ConfigDict(title="[backoff]", validate_default=True)

    maximum: float = Field(
        default=_default(Limits, "maximum"),
        ge=0.1,
        le=A_DAY,
        title="Maximum",
        description="The longest wait.",
        examples=[_default(Limits, "maximum")],
    )
    initial: float = Field(
        default=_default(Limits, "initial"),
        ge=0.1,
        le=A_DAY,
        title="Initial",
        description="The first wait.",
        examples=[_default(Limits, "initial")],
    )
    stable_after: float = Field(
        default=_default(Limits, "stable_after"),
        ge=0,
        le=A_DAY,
        title="Stable after",
        description="After a session that held for so long, the waits start anew from `initial`.",
        examples=[_default(Limits, "stable_after")],
    )
    return_after: float = Field(
        default=_default(Limits, "return_after"),
        ge=1,
        le=A_DAY,
        title="Return after",
        description="With several relays, an earlier one serves again when it has answered for so long.",
        examples=[_default(Limits, "return_after")],
    )

    @field_validator("initial", mode="after")
    @classmethod
    def _at_most_the_maximum(cls, value: float, info: ValidationInfo) -> float:
        maximum = info.data.get("maximum")
        if maximum is not None and value > maximum:
            raise ValueError(f"{value:g} s is longer than the longest wait, {maximum:g} s: swap or change them")
        return value


class CanaryTable(Table):
    """How often each remote forward is tried end to end, from the relay's side."""

    model_config = ConfigDict(title="[canary]")

    interval: Annotated[float, AfterValidator(rules.canary_interval)] = Field(
        default=_default(Canary, "interval"),
        ge=0,
        le=A_DAY,
        title="Interval",
        description="Seconds between two tries of a forward that nobody uses meanwhile; 0 switches the canary off.",
        examples=[_default(Canary, "interval")],
    )


class Document(Table):
    """A tunnel: its relay or relays, its forwards, and how it is kept up."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["forward"], "properties": {"forward": {"minItems": 1}}},
                {"required": ["mosh"]},
            ]
        }
    )

    mode: Literal["failover", "all"] = Field(
        default=_default(Profile, "mode").value,
        title="Mode",
        description="What several relays are for. failover: one at a time, the first that answers; "
        "all: every one at once.",
        examples=["failover"],
    )
    relay: Annotated[Relays, BeforeValidator(_single, json_schema_input_type=RelayTable | Relays)] = Field(
        title="Relay",
        description="Where the tunnel goes: one table, or several as [[relay]], the preferred one first.",
    )
    forward: list[ForwardTable] = Field(default=[], title="Forwards", description="Listeners and their targets.")
    mosh: MoshTable | None = Field(default=None, title="mosh")
    keepalive: KeepaliveTable = Field(default=KeepaliveTable(), title="Keepalive")
    backoff: BackoffTable = Field(default=BackoffTable(), title="Backoff")
    canary: CanaryTable = Field(default=CanaryTable(), title="Canary")


class _Draft202012(GenerateJsonSchema):
    """Leaves null out, which TOML does not have: nobody writes a key that has no value."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if "default" in schema and schema["default"] is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def encode_default(self, dft: Any) -> Any:
        return str(dft) if isinstance(dft, PortRange) else super().encode_default(dft)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a profile, with titles, descriptions and defaults."""
    described = Document.model_json_schema(schema_generator=_Draft202012)
    return {"$schema": _Draft202012.schema_dialect, **described, "title": "tunneld profile"}
