"""Names in the durable job store. A change of a name orphans the jobs under the old one."""

APPLICATION = "nexusmix"
# Fixed. The default is computed from the workflows' code, so an upgrade would strand every job.
APPLICATION_VERSION = "1"

# Each worker runs one heavy job at a time; short jobs do not wait for it.
HEAVY = "heavy"
SHORT = "short"
# Downloads may take hours, and compute little.
IMPORTS = "imports"
# What nobody waits for.
MEASUREMENTS = "measurements"

ALL = (HEAVY, SHORT, IMPORTS, MEASUREMENTS)

MAKE_MIX = "make_mix"
TRAIN_PROJECTION = "train_projection"
EMBED_DOMAIN = "embed_domain"
CHECK_FAMILY = "check_family"
CHECK_EXPERT = "check_expert"
IMPORT_EXPERT = "import_expert"
MEASURE_EXPERT = "measure_expert"
