"""The pipeline, one module a stage: `ls src/quip/stages` is the table of contents."""
