"""A cluster on one machine: the parts behind `ops/lab`. Standard library only, so that it runs before any install."""
