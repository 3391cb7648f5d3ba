"""A second nexusmix with a family and an expert, for tests.

`python -m tests.service.client.peer_process` prints its address and a key that may read, as JSON.
It ends with its standard input.
"""

import json
import sys

from registry.blobs import blob_stores
from registry.database import db
from service import keys
from service.app import create_app
from service.scopes import Scope
from tests.assembler import rows
from tests.service.conftest import serving


def main() -> None:
    with db.transaction() as session:
        rows.add_all(session, blob_stores.store(), num_experts=1)
        key = keys.create_key(session, name="reader", scopes=[Scope.READ])
    with serving(create_app()) as address:
        sys.stdout.write(json.dumps({"address": address, "key": key}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
