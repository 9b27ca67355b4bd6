"""From a declaration to shards on disk, and back: plan, build, verify, show."""
