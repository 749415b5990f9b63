"""The words of onehost: nouns, tables, wire, errors, settings. Imports nothing else of ours."""
