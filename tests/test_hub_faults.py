"""The faults of the test Hub: each of them reaches unmodified clients, and the Hub survives its clients."""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from caef_data.tests.hub.calls import api, download, leave, push, tree
from caef_data.tests.hub.client import Client, ClientError, client_env, escapes, sleeps
from caef_data.tests.hub.faults import Fault
from caef_data.tests.hub.server import ENDPOINTS
from caef_data.tests.hub.side import CARD, Side


def test_what_is_damaged_in_flight_shows_and_heals(side: Side) -> None:
    name = "user/damaged"
    side.repo(name)
    side.hub.commit(name, {"README.md": CARD.encode()})  # so that the push commits large files only
    side.hub.fault("commit" if side.xet else "lfs-put", "corrupt")
    there = side.client.call(tree, name, side.pushed(name))
    stored, local = side.files(name), side.local
    (wrong,) = [path for path in local if stored[path] != local[path]]
    assert there[wrong] == hashlib.sha256(stored[wrong]).hexdigest() != hashlib.sha256(local[wrong]).hexdigest()
    side.pushed(name)
    assert side.files(name) == local


def test_an_upload_needs_its_content(lfs_side: Side) -> None:
    lfs_side.hub.fault("lfs-put", "truncate")
    with pytest.raises(ClientError, match="did not arrive whole") as raised:
        lfs_side.pushed("user/short")
    assert raised.value.status == 422
    assert lfs_side.files("user/short") == {}


@pytest.mark.parametrize("status", [401, 403, 404, 412, 429, 500, 502, 503, 504])
def test_a_status_reaches_the_client(lfs_side: Side, status: int) -> None:
    lfs_side.repo("user/faults")
    fault = lfs_side.hub.fault("info", status, after=1, message="hush\n{authorization}")
    lfs_side.client.call(api, "repo_info", "user/faults")
    with pytest.raises(ClientError, match=lfs_side.hub.token) as raised:
        lfs_side.client.call(api, "repo_info", "user/faults")
    assert raised.value.status == status
    assert fault.fired == 1
    assert lfs_side.hub.log[-1].fault == lfs_side.hub.log[-1].status == status


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("drop", "RemoteProtocolError"),
        ("reset", "ReadError"),
        ("stall", "ReadTimeout"),
        ("lost", "RemoteProtocolError"),
    ],
)
def test_a_silence_reaches_the_client(lfs_side: Side, kind: str, error: str) -> None:
    lfs_side.repo("user/faults")
    lfs_side.hub.fault("info", kind)
    with pytest.raises(ClientError) as raised:
        lfs_side.client.call(api, "repo_info", "user/faults", timeout=0.2 if kind == "stall" else None)
    assert raised.value.chain[0] == error
    lfs_side.client.call(api, "repo_info", "user/faults")


@pytest.mark.parametrize("kind", ["drop", "reset", "lost", 500])
def test_an_upload_goes_on_after_a_fault(lfs_side: Side, kind: int | str) -> None:
    name = f"user/upload-{kind}"
    fault = lfs_side.hub.fault("lfs-put", kind, times=2)
    lfs_side.pushed(name)
    assert fault.fired == 2
    assert lfs_side.files(name) == lfs_side.local


def test_a_stall_ends(lfs_side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    lfs_side.repo("user/stall")
    monkeypatch.setattr(lfs_side.hub, "stall_limit", 0.1)
    lfs_side.hub.fault("info", "stall")
    with pytest.raises(ClientError) as raised:
        lfs_side.client.call(api, "repo_info", "user/stall")  # without a time limit
    assert raised.value.chain[0] == "RemoteProtocolError"


def test_a_lost_answer_was_work_done(lfs_side: Side) -> None:
    lfs_side.repo("user/lost")
    lfs_side.hub.fault("commit", "lost")
    with pytest.raises(ClientError):
        lfs_side.pushed("user/lost")
    assert lfs_side.files("user/lost") == lfs_side.local


@pytest.mark.parametrize(("path", "endpoint"), [("noise.parquet", "storage"), ("README.md", "resolve")])
@pytest.mark.parametrize("kind", ["truncate", "corrupt"])
def test_a_download_is_damaged(lfs_side: Side, path: str, endpoint: str, kind: str) -> None:
    lfs_side.pushed("user/down")
    fault = lfs_side.hub.fault(endpoint, kind)
    same = lfs_side.client.call(download, "user/down", path) == hashlib.sha256(lfs_side.local[path]).hexdigest()
    assert same == (kind == "truncate")  # a client tries again what was cut short, and sees nothing else
    assert fault.fired == 1


def test_pauses_are_noted_and_skipped(lfs_side: Side) -> None:
    lfs_side.hub.fault("preupload", 429, retry_after=3600)
    lfs_side.hub.fault("preupload", 503, times=2)
    before = len(sleeps(lfs_side.home))
    lfs_side.pushed("user/pauses")
    waited = [seconds for module, seconds in sleeps(lfs_side.home)[before:] if module == "huggingface_hub.utils._http"]
    assert waited == [3601, 2, 4]  # the server's word, and one for rounding; then the client's own


def test_xet_tokens_are_asked_for_again(sides: Callable[[str], Side]) -> None:
    side = sides("xet")
    fault = side.hub.fault("xet-write-token", 503)
    side.pushed("user/tokens")
    assert side.files("user/tokens") == side.local
    assert fault.fired == 1


def test_a_hub_that_is_down_forgets_nothing(lfs_side: Side) -> None:
    oid = lfs_side.pushed("user/down")
    with lfs_side.hub.down(), pytest.raises(ClientError) as raised:
        lfs_side.client.call(api, "repo_info", "user/down")
    assert raised.value.chain[0] == "ConnectError"
    assert oid in lfs_side.client.call(api, "repo_info", "user/down")


def test_a_killed_client_upsets_nothing(lfs_side: Side, tmp_path: Path) -> None:
    lfs_side.repo("user/killed")
    with Client(client_env(lfs_side.hub, tmp_path)) as client:
        lfs_side.hub.fault("lfs-put", "meanwhile", after=1, action=lambda: os.kill(client.pid, signal.SIGKILL))
        with pytest.raises(EOFError):
            client.call(push, "user/killed", str(lfs_side.data))
    assert lfs_side.files("user/killed") == {}
    lfs_side.pushed("user/killed")
    assert lfs_side.files("user/killed") == lfs_side.local


@pytest.mark.parametrize("kind", ["connect", "resolve"])
def test_nothing_leaves_the_machine(tmp_path: Path, lfs_side: Side, kind: str) -> None:
    with Client(client_env(lfs_side.hub, tmp_path)) as client, pytest.raises(ClientError, match="must not leave"):
        client.call(leave, kind)
    assert len(escapes(tmp_path)) == 1


def test_a_client_sees_nothing_of_the_world(lfs_side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "https_proxy", "ALL_PROXY", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "outer")
    for xet in (False, True):
        env = client_env(lfs_side.hub, tmp_path, xet, token=None)
        assert "outer" not in env.values() and "HF_TOKEN" not in env
        assert ("HF_HUB_DISABLE_XET" in env) != xet


def test_faults_are_checked_and_endpoints_are_apart() -> None:
    for wrong in ("explode", 200):
        with pytest.raises(ValueError, match="no such kind"):
            Fault("GET", "/", wrong)
    assert len({(method, pattern.pattern) for method, pattern in ENDPOINTS.values()}) == len(ENDPOINTS)
