"""From a base model to an aligned one: instruction rows, supervised fine-tuning, preferences, DPO."""
