"""What the folder of an owner holds, and which of it the registry keeps.

It imports from this package only `imports`, `checkpoints`, `blobs` and what lies below them.
Nothing here needs the database or torch: it runs on the computer of the owner.
"""
