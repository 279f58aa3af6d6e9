"""From a mixture to a trained reward model."""
