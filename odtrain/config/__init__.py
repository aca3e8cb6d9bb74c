"""The configuration: what may be set, how it is checked, how `conf/` and overrides come together."""
