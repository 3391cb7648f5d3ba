"""Names of the files in a checkpoint's folder."""

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TENSORS = "model.safetensors"
# Of weights in several files: which file holds which tensor.
TENSORS_INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
ATTESTATION = "attestation.json"
# Beside config and tokenizer in a model folder, from which vLLM serves.
MANIFEST = "manifest.json"
