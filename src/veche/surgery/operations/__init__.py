"""Operations that grow a tensor, each a pure function that keeps the model's function."""
