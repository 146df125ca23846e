from __future__ import annotations

import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker_config.errors import RegistryError, StorageError
from broker_config.passwords import matches_password
from broker_config.policy import Role
from broker_config.registry import (
    DEFAULT_INTERVAL_S,
    MAX_SITE_CHARS,
    Credential,
    Enrolment,
    Registry,
    check_enrolment,
    new_secret,
)
from broker_config.topics import is_identity

from .strategies import UNTIMED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANY = 10_000


@pytest.fixture(name="registry")
def fixture_registry(tmp_path: Path) -> Iterator[Registry]:
    with closing(Registry(tmp_path / "registry.db")) as registry:
        yield registry


def opens(registry: Registry, credential: Credential) -> bool:
    """Whether the secret is the one on record."""
    entry = registry.get(credential.name)
    return entry is not None and matches_password(credential.secret, entry.password_hash)


def test_enrolling(registry: Registry) -> None:
    credential = registry.add(Enrolment("esp-1", "Kaapstad 🌡", 10.0), now_ms=7)
    entry = registry.get("esp-1")
    assert entry is not None
    assert entry._replace(password_hash="") == (
        *("esp-1", Role.DEVICE, "Kaapstad 🌡", 10.0, ""),
        *(7, 7, None, False),
    )
    assert entry.role is Role.DEVICE
    assert credential.name == "esp-1"
    assert opens(registry, credential)
    assert registry.get("esp-2") is None


def test_the_defaults_of_an_enrolment(registry: Registry) -> None:
    registry.add(Enrolment("esp-1"), now_ms=7)
    (entry,) = registry.entries()
    assert (entry.site, entry.interval_s, entry.role) == ("", DEFAULT_INTERVAL_S, Role.DEVICE)


def test_a_secret_is_256_bits_that_need_no_quoting() -> None:
    made = {new_secret() for _ in range(200)}
    assert len(made) == 200
    assert {len(secret) for secret in made} == {43}
    assert all(c.isalnum() or c in "-_" for secret in made for c in secret)


def test_enrolling_twice_is_an_error_that_says_what_to_do(registry: Registry) -> None:
    first = registry.add(Enrolment("esp-1"), now_ms=1)
    with pytest.raises(RegistryError, match=r"already enrolled: issue .* `iotctl devices rotate"):
        registry.add(Enrolment("esp-1", "elsewhere"), now_ms=2)
    assert opens(registry, first)
    assert [entry.site for entry in registry.entries()] == [""]


def test_a_rotated_secret_is_the_only_one(registry: Registry) -> None:
    old = registry.add(Enrolment("esp-1"), now_ms=1)
    registry.revoke("esp-1", now_ms=2)
    new = registry.rotate("esp-1", now_ms=3)
    assert not opens(registry, old)
    assert opens(registry, new)
    entry = registry.get("esp-1")
    assert entry is not None
    assert (entry.created_ms, entry.rotated_ms, entry.revoked_ms) == (1, 3, None)


def test_a_revocation_keeps_its_first_time(registry: Registry) -> None:
    registry.add(Enrolment("esp-1"), now_ms=1)
    registry.revoke("esp-1", now_ms=2)
    registry.revoke("esp-1", now_ms=3)
    assert [entry.revoked_ms for entry in registry.entries()] == [2]


UNKNOWN: list[Callable[[Registry], object]] = [
    lambda registry: registry.rotate("esp-9", now_ms=1),
    lambda registry: registry.revoke("esp-9", now_ms=1),
    lambda registry: registry.revoke_many(["esp-1", "esp-9"], now_ms=1),
]


@pytest.mark.parametrize("act", UNKNOWN)
def test_who_is_not_enrolled_is_said_and_nothing_is_changed(
    registry: Registry, act: Callable[[Registry], object]
) -> None:
    registry.add(Enrolment("esp-1"), now_ms=1)
    before = registry.entries()
    with pytest.raises(RegistryError, match="esp-9 is not enrolled: see `iotctl devices list`"):
        act(registry)
    assert registry.entries() == before


def test_ensuring_enrols_or_rotates(registry: Registry) -> None:
    first = registry.ensure(Enrolment("bridge", role=Role.BRIDGE), now_ms=1)
    assert opens(registry, first)
    registry.revoke("bridge", now_ms=2)
    second = registry.ensure(Enrolment("bridge", "attic", 5.0, Role.BRIDGE), now_ms=3)
    assert not opens(registry, first)
    assert opens(registry, second)
    (entry,) = registry.entries()
    assert entry._replace(password_hash="") == (
        *("bridge", Role.BRIDGE, "attic", 5.0, ""),
        *(1, 3, None, False),
    )


def test_ensuring_never_changes_a_role(registry: Registry) -> None:
    credential = registry.add(Enrolment("bridge"), now_ms=1)
    with pytest.raises(RegistryError, match="bridge is enrolled as device, not as bridge"):
        registry.ensure_many([Enrolment("esp-1"), Enrolment("bridge", role=Role.BRIDGE)], now_ms=2)
    assert [entry.name for entry in registry.entries()] == ["bridge"]
    assert opens(registry, credential)


def test_entries_are_by_name_and_by_role(registry: Registry) -> None:
    registry.add_many([Enrolment("b"), Enrolment("c", role=Role.OPS), Enrolment("a")], now_ms=1)
    assert [entry.name for entry in registry.entries()] == ["a", "b", "c"]
    assert [entry.name for entry in registry.entries(Role.DEVICE)] == ["a", "b"]
    assert [entry.name for entry in registry.entries(Role.OPS)] == ["c"]
    assert registry.entries(Role.BRIDGE) == []


def test_ten_thousand_are_enrolled_at_once_or_not_at_all(registry: Registry) -> None:
    wanted = [Enrolment(f"esp-{n:05}") for n in range(MANY)]
    progress: list[int] = []
    with pytest.raises(RegistryError, match="esp-00000 is already enrolled"):
        registry.add_many([*wanted[:100], wanted[0]], now_ms=1)
    assert registry.entries() == []
    issued = registry.add_many(iter(wanted), now_ms=1, on_progress=progress.append)
    assert progress == list(range(1, MANY + 1))
    assert [credential.name for credential in issued] == [entry.name for entry in wanted]
    assert len({credential.secret for credential in issued}) == MANY
    assert len({entry.password_hash for entry in registry.entries()}) == MANY
    assert opens(registry, issued[0])
    assert opens(registry, issued[-1])


def test_a_batch_that_is_interrupted_enrols_nobody(registry: Registry) -> None:
    def interrupt(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    wanted = [Enrolment(f"esp-{n}") for n in range(5)]
    for enrol in (registry.add_many, registry.ensure_many):
        with pytest.raises(KeyboardInterrupt):
            enrol(wanted, now_ms=1, on_progress=interrupt)
        assert registry.entries() == []
    assert len(registry.add_many(wanted, now_ms=1)) == 5


def test_one_bad_enrolment_stops_the_batch(registry: Registry) -> None:
    bad = [Enrolment("esp-1"), Enrolment("esp 2")]
    for enrol in (registry.add_many, registry.ensure_many):
        with pytest.raises(RegistryError, match="'esp 2' cannot be a device id"):
            enrol(bad, now_ms=1)
        assert registry.entries() == []


@pytest.mark.parametrize(
    "bad",
    [
        Enrolment(""),
        Enrolment("a/b"),
        Enrolment("+"),
        Enrolment("a" * 65),
        Enrolment("a\n"),
        Enrolment("a", interval_s=0.0),
        Enrolment("a", interval_s=-1.0),
        Enrolment("a", interval_s=86_401.0),
        Enrolment("a", interval_s=float("nan")),
        Enrolment("a", interval_s=float("inf")),
        Enrolment("a", site="x" * (MAX_SITE_CHARS + 1)),
        Enrolment("a", site="line\nbreak"),
        Enrolment("a", site="back\\slash"),
        Enrolment("a", site="\x1b[2J"),
        Enrolment("a", site="\ud800"),
    ],
)
def test_what_cannot_be_enrolled_is_said_in_one_line(bad: Enrolment) -> None:
    with pytest.raises(RegistryError) as caught:
        check_enrolment(bad)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@UNTIMED
@given(st.text(max_size=70))
def test_the_name_of_a_principal_is_an_identity(name: str) -> None:
    if is_identity(name):
        check_enrolment(Enrolment(name))
    else:
        with pytest.raises(RegistryError):
            check_enrolment(Enrolment(name))


def test_the_registry_outlives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with closing(Registry(path)) as registry:
        credential = registry.add(Enrolment("esp-1", "attic", 5.0), now_ms=1)
        before = registry.entries()
    with closing(Registry(path)) as registry:
        assert registry.entries() == before
        assert opens(registry, credential)


def test_two_connections_see_each_other(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with closing(Registry(path)) as one, closing(Registry(path)) as other:
        seen = other.data_version()
        assert other.data_version() == seen
        credential = one.add(Enrolment("esp-1"), now_ms=1)
        assert other.data_version() != seen
        assert opens(other, credential)
        other.revoke("esp-1", now_ms=2)
        assert [entry.revoked_ms for entry in one.entries()] == [2]


def test_no_secret_is_in_the_files_and_they_are_for_their_owner(tmp_path: Path) -> None:
    with closing(Registry(tmp_path / "registry.db")) as registry:
        issued = registry.add_many([Enrolment(f"esp-{n}") for n in range(20)], now_ms=1)
        issued.append(registry.rotate("esp-1", now_ms=2))
        issued.append(registry.ensure(Enrolment("esp-2"), now_ms=3))
        open_files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    closed_file = (tmp_path / "registry.db").read_bytes()
    assert set(open_files) == {"registry.db", "registry.db-wal", "registry.db-shm"}
    assert modes == {0o600}
    content = b"".join([*open_files.values(), closed_file])
    assert b"esp-1" in closed_file
    assert [c for c in issued if c.secret.encode() in content] == []


def test_a_file_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_text("not a database")
    with pytest.raises(StorageError, match="not a database"):
        Registry(path)


def test_a_closed_registry_says_so(registry: Registry) -> None:
    registry.close()
    with pytest.raises(StorageError, match="cannot read"):
        registry.get("esp-1")
    with pytest.raises(StorageError, match="cannot write"):
        registry.add(Enrolment("esp-1"), now_ms=1)


class Known(NamedTuple):
    """What the model knows of one principal."""

    role: Role
    site: str
    secret: str
    created_ms: int
    rotated_ms: int
    revoked_ms: int | None


names = st.sampled_from(["a", "b", "c"])
roles = st.sampled_from(Role)
sites = st.sampled_from(["", "attic"])


class RegistryMachine(RuleBasedStateMachine):
    """Any order of commands, beside a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "registry.db"
        self.registry = Registry(self.path)
        self.known: dict[str, Known] = {}
        self.now_ms = 0

    def teardown(self) -> None:
        self.registry.close()
        self.folder.cleanup()

    @rule(name=names, role=roles, site=sites)
    def add(self, name: str, role: Role, site: str) -> None:
        self.now_ms += 1
        wanted = Enrolment(name, site, role=role)
        if name in self.known:
            with pytest.raises(RegistryError):
                self.registry.add(wanted, now_ms=self.now_ms)
            return
        secret = self.registry.add(wanted, now_ms=self.now_ms).secret
        self.known[name] = Known(role, site, secret, self.now_ms, self.now_ms, None)

    @rule(name=names, role=roles, site=sites)
    def ensure(self, name: str, role: Role, site: str) -> None:
        self.now_ms += 1
        wanted = Enrolment(name, site, role=role)
        known = self.known.get(name)
        if known and known.role is not role:
            with pytest.raises(RegistryError):
                self.registry.ensure(wanted, now_ms=self.now_ms)
            return
        secret = self.registry.ensure(wanted, now_ms=self.now_ms).secret
        created_ms = known.created_ms if known else self.now_ms
        self.known[name] = Known(role, site, secret, created_ms, self.now_ms, None)

    @rule(name=names)
    def rotate(self, name: str) -> None:
        self.now_ms += 1
        if name not in self.known:
            with pytest.raises(RegistryError):
                self.registry.rotate(name, now_ms=self.now_ms)
            return
        secret = self.registry.rotate(name, now_ms=self.now_ms).secret
        self.known[name] = self.known[name]._replace(
            secret=secret, rotated_ms=self.now_ms, revoked_ms=None
        )

    @rule(chosen=st.lists(names, max_size=3))
    def revoke(self, chosen: list[str]) -> None:
        self.now_ms += 1
        if not set(chosen) <= set(self.known):
            with pytest.raises(RegistryError):
                self.registry.revoke_many(chosen, now_ms=self.now_ms)
            return
        self.registry.revoke_many(chosen, now_ms=self.now_ms)
        for name in chosen:
            known = self.known[name]
            if known.revoked_ms is None:
                self.known[name] = known._replace(revoked_ms=self.now_ms)

    @rule()
    def reopen(self) -> None:
        self.registry.close()
        self.registry = Registry(self.path)

    @invariant()
    def the_file_says_what_the_model_says(self) -> None:
        entries = {entry.name: entry for entry in self.registry.entries()}
        assert list(entries) == sorted(self.known)
        for name, known in self.known.items():
            entry = entries[name]
            assert matches_password(known.secret, entry.password_hash)
            assert (entry.role, entry.site) == (known.role, known.site)
            assert (entry.created_ms, entry.rotated_ms) == (known.created_ms, known.rotated_ms)
            assert entry.revoked_ms == known.revoked_ms


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(UNTIMED, max_examples=20, stateful_step_count=15)
