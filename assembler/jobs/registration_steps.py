"""The steps of a registration: check a seed; import and check a version of an expert, embed it.

Each ends with one transaction that changes the state of its row. A refusal is raised; the workflow
stores it.
"""

import os
import time
from collections.abc import Callable

from sqlalchemy.orm import Session

from assembler.jobs import job_ids
from assembler.mixes import job_events
from assembler.routing import input_moments
from assembler.routing.embedder import DOMAIN_TEXTS, DOMAIN_TOKENS, EMBEDDER, embedders
from registry.blobs import blob_stores
from registry.catalog import (
    blob_permissions,
    documents,
    embeddings,
    experts,
    families,
    kept_documents,
)
from registry.checkpoints import manifests
from registry.database import db
from registry.database.tables import ExpertVersion, Family

CHECK_FAMILY, CHECK_EXPERT, EMBED = "check-family", "check-expert", "embed"
IMPORT, MEASURE = "import-expert", "measure"
# Progress that is stored more often cannot be followed by a person.
REPORT_SECONDS = 0.5


def check_family(family_id: int) -> None:
    """Check the seed of a family, which makes the family ready."""
    from assembler.jobs import checkpoint_checks

    with db.transaction() as session:
        family = session.get_one(Family, family_id)
    blobs = blob_stores.store()
    log_path = job_events.log_path(job_ids.of_family(family), "server")
    checkpoint_checks.check_family(family, blobs, log_path=log_path)
    seed = manifests.load(blobs, family.seed_digest)

    def store(session: Session) -> None:
        families.mark_ready(session, family_id, seed_digest=family.seed_digest)
        blob_permissions.record_downloadable(session, seed)
        job_events.end_step(session, job_ids.of_family(family), step=CHECK_FAMILY)

    job_events.durably(store)


def import_expert(version_id: int) -> None:
    """Make the checkpoint of a version from its source; it is checked next."""
    from assembler.jobs import fetched_imports, imports

    blobs = blob_stores.store()
    version = _version(version_id)
    run = fetched_imports.run if fetched_imports.is_wanted(version) else imports.run
    made = run(version, blobs, on_progress=_reporter(version_id))
    digest = manifests.store(blobs, made.manifest)

    def store(session: Session) -> None:
        experts.mark_imported(
            session,
            version_id,
            manifest_digest=digest,
            source=None if made.source is None else made.source.to_json(),
            imported_from=made.summary,
        )
        job_events.end_step(session, job_ids.of_import(version), step=IMPORT)
        job_events.wake(session)

    job_events.durably(store)


def check_expert(version_id: int) -> None:
    """Check a version of an expert; its domain is embedded next."""
    from assembler import transformers_without_torch

    transformers_without_torch.load()
    from assembler.jobs import checkpoint_checks

    blobs = blob_stores.store()
    version = _version(version_id)
    checkpoint_checks.check_version(version, blobs)
    checkpoint = manifests.load(blobs, experts.checkpoint_digest(version))

    def store(session: Session) -> None:
        experts.mark_checked(session, version_id)
        blob_permissions.record_downloadable(session, checkpoint)
        job_events.end_step(session, job_ids.of_check(version), step=CHECK_EXPERT)
        job_events.wake(session)

    job_events.durably(store)


def embed(version_id: int) -> None:
    """Embed the domain of an expert: the encoder's vector, and what its network reads."""
    from assembler.routing.router_inputs import RouterInputs
    from assembler.routing.text_encoder import Encoder
    from engine.vllm_plugin import tensors

    blobs = blob_stores.store()
    version = _version(version_id)
    parsed = documents.parse(blobs.read(version.documents_digest))
    texts = documents.sample_evenly(parsed, count=DOMAIN_TEXTS)
    report = _reporter(version_id)
    encoder = Encoder()
    vectors = encoder.embed(texts, on_texts=lambda n, of: report(f"document {n + 1} of {of}"))
    vector = vectors.mean(0).tolist()
    inputs = RouterInputs(manifests.load(blobs, experts.checkpoint_digest(version)), blobs)
    report("its network reads the documents")
    linear_inputs = inputs.watch_linears()
    moments = inputs.moments(parsed, num_tokens=DOMAIN_TOKENS)
    states_digest = tensors.write(blobs, moments.embedding()).digest
    moments_digest = input_moments.write(blobs, linear_inputs.moments())

    def store(session: Session) -> None:
        embeddings.store(
            session,
            version,
            vector=vector,
            embedder=EMBEDDER,
            num_documents=len(texts),
            states_digest=states_digest,
            num_tokens=moments.num_tokens,
            moments_digest=moments_digest,
            embedders=embedders(version.expert.family.seed_digest),
        )
        experts.mark_embedded(session, version_id)
        if experts.get_version(session, version_id).forget_documents:
            kept_documents.forget(session, version_id)
        job_events.end_step(session, job_ids.of_embedding(version), step=EMBED)

    job_events.durably(store)


def measure(version_id: int) -> None:
    """Measure what gates need to know of an expert and its seed; see `parent_measurements`."""
    from assembler.evaluation import general_text, parent_measurements

    # Only on cores that nobody else wants: a registration or a mix meanwhile goes first.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    blobs = blob_stores.store()
    version = _version(version_id)
    family = version.expert.family
    with db.transaction() as session:
        general_digest = general_text.find_family_digest(session, family.name)
    parent_measurements.measure(
        manifests.load(blobs, experts.checkpoint_digest(version)),
        documents.parse(blobs.read(version.documents_digest)),
        seed=manifests.load(blobs, family.seed_digest),
        general=general_text.read(general_digest, blobs),
        blobs=blobs,
    )
    job_id = job_ids.of_measurement(version_id)
    job_events.durably(lambda session: job_events.end_step(session, job_id, step=MEASURE))


def _reporter(version_id: int) -> Callable[[str], None]:
    """Return a function that records what is done with a version, not too often."""
    reported_at = float("-inf")

    def report(what: str) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= REPORT_SECONDS:
            reported_at = time.monotonic()
            job_events.durably(lambda session: experts.report(session, version_id, progress=what))

    return report


def _version(version_id: int) -> ExpertVersion:
    with db.transaction() as session:
        return experts.get_version(session, version_id)
