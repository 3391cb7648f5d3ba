"""Does the gate of a mix see real damage? Faults are planted where real ones arise.

The gate is the product's: `assembler.jobs.pipeline.gate`, which the gate step calls, with the
default policy of a recipe. A fault is in a checkpoint (with digests of its own, as a faulty
assembly or finetune would write it), in the blob store (other bytes under the old digest), in the
code of the assembler, in the folder that an engine starts from, or in the code of the engine.
"""
