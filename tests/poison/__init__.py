"""Writes what nobody should write into every topic of a running node, and watches that the node goes on (I6, I11)."""
