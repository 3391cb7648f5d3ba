"""Names that the durable job store knows us by; a change orphans the jobs under the old name."""

APPLICATION = "nexusmix"
# Fixed: by default it is computed from the workflows' code, and an upgrade would strand every job.
APPLICATION_VERSION = "1"

# One heavy job at a time for each worker; short ones need not wait behind it.
HEAVY = "heavy"
SHORT = "short"

MAKE_MIX = "make_mix"
TRAIN_PROJECTION = "train_projection"
EMBED_DOMAIN = "embed_domain"
