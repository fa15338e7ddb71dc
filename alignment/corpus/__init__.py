"""Raw documents -> deduplicated, filtered, decontaminated, remixed documents -> token shards (paper 2.1)."""
