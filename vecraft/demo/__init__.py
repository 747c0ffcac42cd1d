"""What `vecraft demo` shows: `corpus` is its input, `show` plays. Talks to the node by URL only, as any client would."""
