"""One module a stage of dvc.yaml: read params, call the library, write outs and metrics."""
