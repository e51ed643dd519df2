"""The process model: VISIT's carbon and water cycle, re-implemented from its published equations and compiled."""
