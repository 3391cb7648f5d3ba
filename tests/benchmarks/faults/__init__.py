"""Does the gate catch real damage? Faults are planted where real ones arise; rebuilds have none.

The reference is a mix of the demo's experts without training. A fault is in the checkpoint (with
digests of its own, as a faulty assembly would write it), in the blob store (other bytes under the
old digest), in the folder that a server starts from, or in the code of the server. Every check of
the product judges each fault, even if another check has refused it. So the result shows which
metrics notice a fault.
"""
