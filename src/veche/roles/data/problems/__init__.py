"""Problems whose labels hold by construction, made by the seed, as hard as wished."""
