"""Say in sentences what the notes of a checkpoint hold, for its owner and for who mixes it."""

from collections import Counter
from collections.abc import Iterable

from registry.checkpoints.manifests import Manifest, Notes

DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Names that a sentence shows.
MAX_NAMED = 3


def sentences(manifest: Manifest) -> list[str]:
    """Return where this checkpoint is from, and what differs from the owner's folder."""
    origin = manifest.notes.origin
    source = [] if origin is None else [origin.sentence]
    return [*source, *_casts(manifest), *_left_out(manifest.notes), *_tokens(manifest.notes)]


def _casts(manifest: Manifest) -> Iterable[str]:
    """Return one sentence for each pair of dtypes, such as `float32 -> bfloat16: 2 tensors`."""
    counts = Counter(
        (cast.dtype, manifest.tensors[name].dtype, cast.is_lossless)
        for name, cast in sorted(manifest.notes.casts.items())
    )
    for (source, target, is_lossless), count in counts.items():
        effect = "no number changed" if is_lossless else "numbers rounded"
        yield f"{DTYPE_NAMES[source]} -> {DTYPE_NAMES[target]}: {_tensors(count)}, {effect}"


def _left_out(notes: Notes) -> Iterable[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(notes.left_out.items()):
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        more = f" and {len(names) - 1} like it" if len(names) > 1 else ""
        yield f"left out: {names[0]}{more}, which {reason}"


def _tokens(notes: Notes) -> Iterable[str]:
    if notes.tokens:
        by_number = sorted(notes.tokens, key=lambda token: notes.tokens[token])
        shown = ", ".join(f"{token!r} is {notes.tokens[token]}" for token in by_number[:MAX_NAMED])
        more = ", ..." if len(notes.tokens) > MAX_NAMED else ""
        count = f"{len(notes.tokens)} added token" + ("s" if len(notes.tokens) > 1 else "")
        yield f"{count} that the family does not have: {shown}{more}"
    for name, entry in sorted(notes.rows.items()):
        yield f"kept aside and not mixed: the last {entry.shape[0]} rows of {name}"
    if notes.files:
        yield (
            f"kept aside and not mixed: {', '.join(sorted(notes.files))}; the family's tokenizer is"
            " used"
        )


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"
