"""Does the gate catch real damage? Faults planted where real ones arise, and rebuilds without any.

The reference is a mix of the demo's experts, nothing trained. A fault lies in the checkpoint
(stored under digests of its own, as a faulty assembly would write it), in the blob store (other
bytes under the old digest), in the folder that a server starts from, or in the code of the server.
Each fault is held against every check of the product by itself, past those that refuse it already,
so that it is seen which of the metrics would have told.
"""
