"""The contract between stage 1 and stage 2: format 1, specified in README.md beside this file."""
