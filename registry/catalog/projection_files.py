"""Join an owner's files of public text into the one file that a projection learns from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from registry.catalog.document_files import JSON_LINES, read_documents
from registry.catalog.documents import Document, group_by_domain, serialize
from registry.errors import InvalidInput


@contextmanager
def as_projection_file(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield a JSON Lines file with the documents of all files, valid inside the `with` block.

    A document without a domain gets the name of its file as its domain, so plain texts can be
    given, one for each domain. Raises InvalidInput for files that cannot be read, for two files
    with one name, and for fewer than two domains.
    """
    joined: list[Document] = []
    names: dict[str, Path] = {}
    for path in paths:
        other = names.setdefault(path.stem, path)
        if other != path:
            raise InvalidInput(
                f"{path} and {other} have the same name, which names their domain: rename one"
            )
        joined += [
            replace(document, id=f"{path.stem}/{document.id}", domain=document.domain or path.stem)
            for document in read_documents(path)
        ]
    try:
        group_by_domain(joined)
    except InvalidInput as error:
        detail = "a projection learns from the texts of two domains or more, one file for each"
        raise InvalidInput(detail, problems=error.problems) from error
    with TemporaryDirectory(prefix="nexusmix-") as folder:
        json_lines = Path(folder) / f"documents{JSON_LINES}"
        json_lines.write_bytes(serialize(joined))
        yield json_lines
