"""The dialect: request bodies as typed structures, what they ask for as requests and operations, and results as answers.

Owns everything that is the dialect's form and not ours. Must not read or write; other processes can run what is pure here.
"""
