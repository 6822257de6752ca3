"""The llama.cpp engine: GGUF models through the low-level API of llama-cpp-python."""
