"""Names of the files in a checkpoint's folder."""

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TENSORS = "model.safetensors"
# Maps tensors to files, if the weights are in several files.
TENSORS_INDEX = "model.safetensors.index.json"
# In the folder of an expert: what is kept aside of it, rows of embeddings and tokenizer files.
ROWS_ASIDE = "aside.safetensors"
ASIDE = "aside."
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
ATTESTATION = "attestation.json"
# An adapter as peft saves it.
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_TENSORS = "adapter_model.safetensors"
# Beside config and tokenizer in the model folder that vLLM serves from.
MANIFEST = "manifest.json"
# For readers, with the license in front: Hugging Face shows it.
MODEL_CARD = "README.md"
