"""Keys on the command line.

Covers: service.client.keys, service.client.local.
"""

from starlette.testclient import TestClient

from registry.settings import settings
from service import key_format
from tests.service.command_line import run


def test_keys_are_made_listed_and_revoked(installation: None, anonymous: TestClient) -> None:
    made = run("keys", "create", "app", "--scope", "infer", "--days", "3")
    key = key_format.check(made.stdout.strip())
    headers = {"Authorization": f"Bearer {key}"}
    assert anonymous.get("/v1/models", headers=headers).status_code == 200

    listed = run("keys", "list").stdout
    [row] = [line.split() for line in listed.splitlines() if " app " in line]
    assert "infer" in row
    assert key not in listed

    revoked = run("keys", "revoke", row[0])
    assert revoked.stdout.strip() == f"key {row[0]} (app) is revoked"
    again = run("keys", "create", "app", "--scope", "fly")
    assert again.returncode == 2


def test_the_own_key_is_not_revoked(installation: None) -> None:
    refused = run("keys", "revoke", "1")
    assert refused.returncode == 1
    assert "revoke it with another key" in refused.stderr


def test_a_link_signs_in(installation: None, address: str, anonymous: TestClient) -> None:
    link = run("sign-in").stdout.strip()
    assert link.startswith(f"{address}/sign-in?word=")
    anonymous.get(link.removeprefix(address), follow_redirects=False)
    assert anonymous.get("/experts", follow_redirects=False).status_code == 200


def test_a_key_file_without_a_key_is_named(installation: None) -> None:
    settings().key_path.write_text("nxm_cut")
    refused = run("key")
    assert refused.returncode == 1
    assert "holds no API key" in refused.stderr
