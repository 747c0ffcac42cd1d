"""The content of `vecraft demo`: `corpus` has the input, `show` runs the steps. Uses the node only over HTTP, like any client."""
