"""Daily weather of a site: read from VISIT's files or generated, and the physics of the air."""
