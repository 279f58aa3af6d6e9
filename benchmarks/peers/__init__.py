"""Equal work for contenders that live in environments of their own, timed in turns."""
