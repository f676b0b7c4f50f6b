"""From a name to its answer: resolution, caches per key, views per client, the service."""
