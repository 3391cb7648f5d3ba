"""A chat template is found wherever it lies."""

import json
from dataclasses import replace
from typing import Any

import pytest

from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints.chat_templates import has_chat_template, loses_template
from registry.checkpoints.manifests import Manifest, Notes
from tests import tiny


def manifest(blobs: LocalBlobs, **files: bytes | None) -> Manifest:
    """Return a checkpoint in which these files are replaced; None removes one."""
    names = {"config": "tokenizer_config.json", "template": "chat_template.jinja"}
    known = dict(tiny.store_manifest(blobs).files)
    for key, data in files.items():
        known.pop(names[key], None)
        if data is not None:
            known[names[key]] = put_bytes(blobs, data)
    return replace(tiny.store_manifest(blobs), files=known)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, True),
        ({"config": None}, False),
        ({"config": b"{}"}, False),
        ({"config": b'{"chat_template": null}'}, False),
        ({"config": b"no json"}, False),
        ({"config": None, "template": b"{{ messages }}"}, True),
        ({"config": json.dumps({"chat_template": [{"name": "default"}]}).encode()}, True),
    ],
)
def test_a_template_is_found(blobs: LocalBlobs, files: dict[str, Any], expected: bool) -> None:
    assert has_chat_template(manifest(blobs, **files), blobs) is expected


def test_a_template_is_lost_where_the_seed_has_none(blobs: LocalBlobs) -> None:
    with_template, without = manifest(blobs), manifest(blobs, config=b"{}")
    assert loses_template(with_template, without, blobs)
    assert not loses_template(with_template, with_template, blobs)
    assert not loses_template(without, with_template, blobs)


def test_a_template_that_is_kept_aside_is_lost_too(blobs: LocalBlobs) -> None:
    without = manifest(blobs, config=None)
    aside = manifest(blobs).files
    assert loses_template(replace(without, notes=Notes(files=aside)), without, blobs)
